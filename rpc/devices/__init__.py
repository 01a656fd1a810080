"""Phones and boards that are reached by adb or ssh and have no runtime of TVM: they run networks in C."""
