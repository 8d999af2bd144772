"""The command `vertebra-eval`. Its tables are the core's too, whose short commands start without numpy: this file
imports nothing.
"""
