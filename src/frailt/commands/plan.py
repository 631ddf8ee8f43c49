"""Show a model's standard twins: equal depth, equal parameters, equal FLOPs."""

import textwrap

from frailt.options import parse, table


def run(args: list[str]) -> None:
    from frailt.model.config import ModelConfig
    from frailt.model.counts import activation_bytes
    from frailt.studies.twins import plan

    config = parse(ModelConfig, "plan", args, __doc__)
    twins = plan(config)
    headers = ("", "shape", "width", "hidden", "parameters", "MFLOPs", "cache", "training")
    rows = [
        (
            twin.rule,
            twin.config.shape,
            str(twin.config.dim),
            str(twin.config.feed_forward_dim),
            f"{twin.counts.parameters:,}",
            f"{twin.counts.flops / 1e6:.2f}",
            f"{twin.counts.cache_bytes / 1e6:.2f}",
            f"{activation_bytes(twin.config, batch=1) / 1e6:.2f}",
        )
        for twin in twins
    ]
    print(table(headers, rows))
    fewer = "".join(f" {t.rule.capitalize()}: {t.config.heads} heads." for t in twins if t.config.heads < config.heads)
    note = (
        "MFLOPs: of a forward pass, per token. Cache, and what training keeps for its backward pass: MB in float32 for "
        "one sequence of full context. Weights: 4 bytes a parameter."
    )
    print(textwrap.fill(note + fewer, 80))
