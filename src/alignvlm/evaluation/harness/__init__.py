"""Other people's evaluation toolkits, asking any model that `alignvlm eval` asks.

`lmms_eval` is found by lmms-eval through an entry point (`entry`); `vlmevalkit` is a command of its
own, because VLMEvalKit finds nobody's models but its own. Neither toolkit is imported by anything
else in this package.
"""
