"""The sandbox of the live trial: two tiny language models, their task, and a server for each.

    from advisor.trial.sandbox import rows, sandbox_task, start

    with start("small") as small, start("large") as large:
        ...  # POST {small.base_url}/chat/completions, model small.model

`wording` and `requests` make the task, `engine` runs a model, `scheduler` its queue, `server` and
`openai_form` the endpoint, `launch` the processes; `evaluate` measures what the card in
`profiles/sandbox` states. `calibration/sandbox/train.py` trained the models.
"""

from advisor.trial.sandbox.launch import SandboxServer, start
from advisor.trial.sandbox.task import rows, sandbox_task

__all__ = ["SandboxServer", "rows", "sandbox_task", "start"]
