// Prints what both halves computed.
#include <iostream>
#include <string>

std::string plain_half();
std::string avx2_half();

int main() { std::cout << plain_half() << '\n' << avx2_half() << '\n'; }
