"""Stories graded: by another language model (GPT-Eval), and by measures that need none.

Read ``prompt.py`` for what a judge is asked, ``grading.py`` for what counts as an answer, ``asking.py`` for how many
questions are asked without paying for one twice, ``reports.py`` for what is written, and ``offline.py`` for what can be
measured without a judge.
"""
