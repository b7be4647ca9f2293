#!/usr/bin/env python3
"""The peer of bench_search: the same search by ModelOpt's mtq.auto_quantize (PyPI's nvidia-modelopt, transformers).

    modelopt_search.py ''        prints `ready`, or why ModelOpt is not there
    modelopt_search.py METHOD    gradient or kl_div: prints the seconds of one search as its last line

data/byte-lm, the windows of tests/golden/lm.safetensors, two threads. Loading the model is not timed.
"""
import copy
import pathlib
import sys
import time
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
FORMATS = ("INT4_BLOCKWISE_WEIGHT_ONLY_CFG", "INT8_DEFAULT_CFG", "FP8_DEFAULT_CFG")


def search(torch, mtq, transformers, method):
    from safetensors.torch import load_file

    torch.set_num_threads(2)
    batches = list(load_file(ROOT / "tests/golden/lm.safetensors")["score"].long())
    model = transformers.AutoModelForCausalLM.from_pretrained(
        ROOT / "data/byte-lm", attn_implementation="eager", dtype=torch.float32).eval()

    def loss(output, batch):
        return torch.nn.functional.cross_entropy(output.logits.reshape(-1, 256), batch[:, 1:].reshape(-1))

    if method == "gradient":
        how = {"loss_func": loss, "forward_step": lambda m, batch: m(batch[:, :-1])}
    else:
        how = {"forward_step": lambda m, batch: m(batch[:, :-1]).logits}
    start = time.perf_counter()
    mtq.auto_quantize(model, constraints={"effective_bits": 4.8}, data_loader=batches, num_calib_steps=8,
                      num_score_steps=8, method=method,
                      quantization_formats=[copy.deepcopy(getattr(mtq, f)) for f in FORMATS], **how)
    return time.perf_counter() - start


def main():
    warnings.filterwarnings("ignore")
    try:
        import modelopt.torch.quantization as mtq
        import torch
        import transformers
    except Exception as why:
        print(str(why).splitlines()[0])
        return
    print(search(torch, mtq, transformers, sys.argv[1]) if sys.argv[1] else "ready")


if __name__ == "__main__":
    main()
