"""The report of a grid as Markdown: the paper's tables with what was run beside them, and its claims."""

from collections.abc import Mapping, Sequence

from frailt.model.shape import Shape
from frailt.paper.claims import CLAIMS, FEW_TOKENS
from frailt.paper.grid_figures import shown
from frailt.paper.grid_results import GridResults
from frailt.paper.published import LOSSES, TABLE_2, TABLE_3
from frailt.studies.gap import published_gap
from frailt.studies.report import DASH, gap_text

INTRODUCTION = """\
A *standard* model sends its signal once through each of its blocks: `8` has eight. A *FraiLT* model sends it several
times through the same blocks, and a learned encoding tells each block which pass it is in: `2^4` stores two blocks and
passes each four times, so it computes as deep as `8` with a quarter of the blocks. The question of the paper is how
near such a model comes to the deeper one. The measure here is the validation loss, in nats per token: lower is better.

The paper gives neither its token budget nor its optimizer, and its losses are those of far longer training than shown
here. So the levels differ; what can be compared is how the models of one table stand to each other."""

TITLES = {"figure-4": "Figure 4, models of one and two blocks", "figure-5": "Figure 5, models of four and eight blocks"}


def markdown(results: GridResults) -> str:
    """The whole report as Markdown; its figures lie beside it."""
    losses, note = results.losses(), budget(results)
    chapters = [
        "# The paper's experiment, repeated",
        INTRODUCTION,
        f"**What was run.** {protocol(results)}",
        "## Standard models (the paper's Table 2)",
        _side_by_side(tuple(TABLE_2[64]), losses),
        f"*Validation loss, nats per token, beside the paper's in italics. An empty cell was not run. {note}*",
        "## FraiLT models (the paper's Table 3)",
        _side_by_side(tuple(TABLE_3[64]), losses),
        f"*As above: number of blocks ^ passes of each. {note}*",
        *(
            f"![{TITLES[name]}]({name}.png)\n\n*The paper's {TITLES[name]}, as far as they were run: the paper's "
            f"losses left, ours right. {note}*"
            for name in shown(losses)
        ),
        "## Gap closed",
        "Which part of the way from the standard model with as many blocks (shallow) to the one of equal depth (deep) "
        "a model goes: (shallow - own) / (shallow - deep). 0% means that the passes are worth nothing, 100% that they "
        "are worth as much as blocks of their own.",
        _gaps(results),
        f"*In brackets the 95% interval over validation stories (paired bootstrap); in italics the paper's. {DASH} "
        f"{note}*",
        "## What each model costs",
        _costs(results),
        "*Passes cost what blocks cost in FLOPs (of a forward pass, per token) and in training time; what they save is "
        f"parameters. Bits per byte are of the same loss, and do not depend on the tokenizer. {note}*",
        *_seeds(results, note),
        "## The paper's claims",
        _claims(results),
        "*Each is decided by the same rule from the paper's tables and from ours (`claims.py`), over the widths that "
        f"were run; chance is not weighed. With fewer than {FEW_TOKENS:,} training tokens a model has learned little, "
        f"and a verdict shows little. {note}*",
        "## How it was made",
        f"```sh\n{commands(results)}\n```",
        _machines(results),
    ]
    return "\n\n".join(chapters) + "\n"


def commands(results: GridResults) -> str:
    """Command lines that make these results, one for each set of seeds."""
    base, lines = results.grid.base, []
    cells = list(dict.fromkeys((run.config.model.dim, name) for name, run in results.all_runs()))
    by_seeds: dict[tuple[int, str], list[str]] = {}
    for dim, name in cells:
        by_seeds.setdefault((dim, ",".join(map(str, results.seeds(dim, name)))), []).append(name)
    for (dim, seeds), names in by_seeds.items():
        lines.append(
            f"frailt reproduce --data {results.data['name']} --out grid --widths {dim} --shapes '{','.join(names)}' "
            f"--seeds {seeds} --budget {results.tokens} --lr {base.optimizer.lr:g} "
            f"--batch {base.batch} --context {base.model.context} --heads {base.model.heads} "
            f"--precision {base.precision}" + (" --compile" if base.compile else "")
        )
    return "\n".join(lines)


def budget(results: GridResults) -> str:
    """What stands in every caption: how long every model was trained."""
    times = results.tokens / results.data["train"]["tokens"]
    return f"Each model: {results.tokens:,} training tokens ({times:.2g} times the text)."


def protocol(results: GridResults) -> str:
    """Data and training in a few sentences."""
    base, data = results.grid.base, results.data
    model, optimizer = base.model, base.optimizer
    seeds = {
        dim: sorted({s for (d, _), runs in results.cells.items() if d == dim for s in runs}) for dim in results.widths
    }
    precision = " and ".join(sorted({run.provenance["precision"] for _, run in results.all_runs()}))
    listed = "; ".join(f"width {dim}: {', '.join(map(str, own))}" for dim, own in seeds.items())
    return (
        f"{budget(results)} {base.steps:,} steps of {base.batch} windows of {model.context} tokens, AdamW with peak "
        f"rate {optimizer.lr:g}, {optimizer.warmup:.0%} warm-up and a cosine to 0, weight decay "
        f"{optimizer.weight_decay:g}, {precision}; {model.heads} heads, vocabulary {model.vocab_size}. The same "
        f"text in the same order for every model: {data['name']}, {data['train']['stories']:,} stories of "
        f"{data['train']['tokens']:,} tokens; validation on {data['valid']['stories']:,} stories, "
        f"{data['valid']['tokens'] - 1:,} tokens. Seeds by {listed}. Where there are several, losses are their means."
    )


def _side_by_side(names: Sequence[str], losses: Mapping[int, Mapping[str, float]]) -> str:
    """A table in the paper's layout, each of its columns twice: ours, and the paper's in italics."""
    head = ["width", *(cell for name in names for cell in (f"`{name}`", "*paper*"))]
    rows = []
    for dim in sorted(LOSSES.keys() | losses.keys()):
        row = [str(dim)]
        for name in names:
            own, theirs = losses.get(dim, {}).get(name), LOSSES.get(dim, {}).get(name)
            row += ["" if own is None else f"{own:.3f}", "" if theirs is None else f"*{theirs:.3f}*"]
        rows.append(row)
    return _table(head, rows)


def _gaps(results: GridResults) -> str:
    names = [*TABLE_3[64], *sorted({name for _, name in results.cells if "^" in name and name not in TABLE_3[64]})]
    rows = []
    for dim in sorted(LOSSES.keys() | set(results.widths)):
        row = [str(dim)]
        for name in names:
            gap = results.gap(dim, name)
            theirs = None if ":" in name else published_gap(dim, Shape.parse(name))
            own = "" if gap is None else gap_text(gap.value, gap.interval)
            row += [own, "" if theirs is None else f"*{theirs:.0%}*"]
        rows.append(row)
    return _table(["width", *(cell for name in names for cell in (f"`{name}`", "*paper*"))], rows)


def _costs(results: GridResults) -> str:
    rows = []
    for dim, name in dict.fromkeys((run.config.model.dim, name) for name, run in results.all_runs()):
        counts, runs = results.counts(dim, name), results.seeds(dim, name).values()
        nats, bits = (
            sum(getattr(run.loss, measure) for run in runs) / len(runs)
            for measure in ("nats_per_token", "bits_per_byte")
        )
        depth = Shape.parse(name.partition(":")[0]).depth
        rows.append(
            [
                str(dim),
                f"`{name}`",
                str(depth),
                f"{counts.parameters:,}",
                f"{counts.flops / 1e6:.2f}",
                f"{counts.cache_bytes / 1e6:.2f}",
                f"{nats:.3f}",
                f"{bits:.3f}",
            ]
        )
    return _table(["width", "model", "depth", "parameters", "MFLOPs", "cache, MB", "nats/token", "bits/byte"], rows)


def _seeds(results: GridResults, note: str) -> list[str]:
    """The chapter on seeds, where a cell was run with several."""
    rows = []
    for dim, name in dict.fromkeys((run.config.model.dim, name) for name, run in results.all_runs()):
        runs = results.seeds(dim, name)
        if len(runs) > 1:
            losses = [run.loss.nats_per_token for run in runs.values()]
            rows.append(
                [
                    str(dim),
                    f"`{name}`",
                    ", ".join(f"{seed}: {loss:.3f}" for seed, loss in zip(runs, losses, strict=True)),
                    f"{max(losses) - min(losses):.3f}",
                ]
            )
    if not rows:
        return []
    explained = (
        "Another seed gives other first weights and another order of the text. Differences between models that are not "
        "larger than those between the seeds of one model mean nothing."
    )
    table = _table(["width", "model", "loss by seed", "range"], rows)
    return ["## How much chance there is in it", explained, table, f"*Nats per token. {note}*"]


def _claims(results: GridResults) -> str:
    losses = results.losses()
    rows = [
        [claim.section, claim.text, str(claim.decide(LOSSES)), claim.said(losses, tokens=results.tokens)]
        for claim in CLAIMS
    ]
    ours = f"ours (width {', '.join(map(str, results.widths))})"
    return _table(["section", "claim", "the paper's numbers", ours], rows, words=True)


def _machines(results: GridResults) -> str:
    made = {
        f"frailt {p['frailt']} ({p['commit']}), torch {p['torch']}, Python {p['python']}, {p['machine']}": None
        for _, run in results.all_runs()
        for p in [run.provenance]
    }
    return "Trained by " + "; ".join(made) + "."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """A Markdown table; its columns hold numbers, or ``words``."""
    rule = [":---" if words else "---:"] * len(head)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
