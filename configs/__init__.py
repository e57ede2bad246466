"""Configs: each composes the options of one run; `launch.py --config=FILE --help` lists them."""
