#!/usr/bin/env python3
"""The peer of bench_solver: one multiple-choice knapsack solved by HiGHS (PyPI's highspy).

    highs.py ''      prints `ready`, or why HiGHS is not there
    highs.py FILE    prints `MILLISECONDS SCORE OPTIMAL` as its last line

FILE: the budget, then a group a line, `score cost` of each candidate. A gap of 0 is asked for, and 60 seconds at most.
The score is that of the choice HiGHS made, summed from the scores as given; nan where it exceeds the budget.
"""
import sys
import time


def solve(highspy, path):
    import numpy

    with open(path) as file:
        budget = int(file.readline())
        groups = [line.split() for line in file]
    scores = numpy.array([float(s) for g in groups for s in g[0::2]])
    costs = [int(c) for g in groups for c in g[1::2]]
    ends = numpy.cumsum([len(g) // 2 for g in groups])
    count, starts = len(scores), numpy.concatenate(([0], ends[:-1]))
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = count, len(groups) + 1
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = scores, numpy.zeros(count), numpy.ones(count)
    lp.row_lower_ = numpy.append(numpy.ones(len(groups)), -highspy.kHighsInf)
    lp.row_upper_ = numpy.append(numpy.ones(len(groups)), float(budget))
    lp.integrality_ = [highspy.HighsVarType.kInteger] * count
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = numpy.concatenate((starts, [count, 2 * count]))
    lp.a_matrix_.index_ = numpy.concatenate((numpy.arange(count), numpy.arange(count)))
    lp.a_matrix_.value_ = numpy.concatenate((numpy.ones(count), numpy.array(costs, dtype=float)))
    highs = highspy.Highs()
    for option, value in (("output_flag", False), ("mip_rel_gap", 0.0), ("mip_abs_gap", 0.0), ("time_limit", 60.0),
                          ("threads", 1)):
        highs.setOptionValue(option, value)
    start = time.perf_counter()
    highs.passModel(lp)
    highs.run()
    milliseconds = 1e3 * (time.perf_counter() - start)
    optimal = highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    chosen = numpy.array(highs.getSolution().col_value)
    picks = [begin + int(numpy.argmax(chosen[begin:end])) for begin, end in zip(starts, ends)]
    within = sum(costs[i] for i in picks) <= budget
    return f"{milliseconds:.4f} {sum(scores[i] for i in picks) if within else float('nan'):.17g} {int(optimal)}"


def main():
    try:
        import highspy
    except Exception as why:
        print(str(why).splitlines()[0])
        return
    print(solve(highspy, sys.argv[1]) if sys.argv[1] else "ready")


if __name__ == "__main__":
    main()
