"""What was found beside what is to be reached."""

# For the 13B shape on one H100: what memory of 3.0 TB/s allows, and what the backend is designed for.
FLOORS = {"short": (114, 227, 425), "long": (91, 151, 218), "eight": (725, 1205, 1743), "thirty_two": (2411, 3605, 4688)}
SHARES = {"eight": 0.75, "thirty_two": 0.65}
BARS = {"short": (100, 185, 300), "long": (80, 125, 175)}
NAMES = {
    "short": "decode, 1 sequence, context ≤ 512",
    "long": "decode, 1 sequence, context 8,000",
    "eight": "decode, 8 sequences, context 1,024, total",
    "thirty_two": "decode, 32 sequences, context 512, total",
}
PRECISIONS = ("bf16", "8", "4")
MEMORY_BARS = {"bf16": 29.5, "8": 16.8, "4": 10.9}


def rows(done):
    """What, to be reached, found, whether it is met; nothing found where it was not run. Speeds of other shapes have no bars."""
    for what, bar, found, met in all_rows(done):
        is_of_any_shape = bar.startswith(("0", "all"))
        yield (what, bar, found, met) if is_of_any_shape or done["shape"] == "13b" else (what.split(" (floor")[0], "", found, None)


def all_rows(done):
    kernels = done.get("kernels", {})
    ratio = kernels.get("largest_ratio")
    yield "largest error of a kernel over plain code's", "all ≤ 2", ratio and f"{ratio:.2f}", ratio and ratio <= 2 and not kernels["wrong"]
    exact = done.get("transformers_bf16")
    for precision in PRECISIONS:
        found = done.get(f"logits_{precision}")
        if precision == "bf16":
            met = found and exact and found["sure_disagreements"] == 0 and found["mean_kl"] <= 1e-3
            met = met and found["unsure_disagreements"] <= 1.2 * max(exact["unsure_disagreements"], 5)
            words = found and f"{found['sure_disagreements']} of {found['sure']}, KL {found['mean_kl']:.1e}"
            yield "sure top tokens that differ from f32's, mean KL", "0, ≤ 1e-3", words, met
        else:
            yield f"mean KL to f32, {precision} bit", "", found and f"{found['mean_kl']:.1e}", None
    for name, what, of in (
        ("graph_is_eager", "recorded = launched, bit for bit", "all positions"),
        ("batch_is_solo", "together = alone, bit for bit", "all positions"),
        ("ahead_is_after", "drawn a step ahead = drawn step by step", "all runs"),
    ):
        found = done.get(name)
        yield what, of, found and f"{found['positions'] - found['differ']} of {found['positions']}", found and found["differ"] == 0
    for cell, name in NAMES.items():
        for index, precision in enumerate(PRECISIONS):
            floor = FLOORS[cell][index]
            bar = BARS[cell][index] if cell in BARS else round(SHARES[cell] * floor)
            found = done.get(f"bench_{precision}_{cell}")
            yield f"{name}, {precision}: tokens/s (floor {floor})", f"≥ {bar}", found and f"{found['decode_tok_s']:.1f}", found and found["decode_tok_s"] >= bar
    prefill = done.get("bench_prefill")
    yield "prompt of 2,048 tokens, ms", "≤ 90", prefill and f"{prefill['ttft_ms']:.1f}", prefill and prefill["ttft_ms"] <= 90
    scenes = done.get("bench_scenes")
    turn, beside = (scenes or {}).get("second_turn"), (scenes or {}).get("beside")
    yield "second turn after 2,000 tokens, ms to the first token", "≤ 20", turn and f"{turn['ttft_ms']:.1f}", turn and turn["ttft_ms"] <= 20
    yield "worst gap while 4,000 tokens are read, ms", "≤ 80", beside and f"{beside['worst_gap_ms']:.1f}", beside and beside["worst_gap_ms"] <= 80
    for precision in PRECISIONS:
        found, bar = done.get(f"bench_memory_{precision}"), MEMORY_BARS[precision]
        gb = found and found["device_memory_gb"]
        yield f"memory with a context of 2,048, {precision}, GB", f"≤ {bar}", gb and f"{gb:.1f}", gb and gb <= bar
    load = done.get("bench_bf16_short")
    yield "loading bf16 from the page cache, s", "≤ 5", load and f"{load['load_s']:.1f}", load and load["load_s"] <= 5
    ours = load and load["decode_tok_s"]
    for peer, what, factor in (
        ("transformers_eager", "transformers' generate", 3.0),
        ("transformers_compiled", "transformers, static cache and torch.compile", 1.0),
        ("compiled_decoder", "the compiled decoder", 1.0),
    ):
        found = done.get(peer)
        ratio = ours / found["tok_s"] if ours and found else None
        yield f"bf16 decode over {what}", f"≥ {factor}", ratio and f"{ratio:.2f} ({found['tok_s']:.1f} tokens/s)", ratio and ratio >= factor


def table(done):
    lines = [f"shape {done['shape']}, torch {done['torch']}, " + next(
        (of["device"] for name, of in done.items() if name.startswith("bench_")), "nothing measured"), ""]
    lines += ["| | to reach | found | |", "|---|---|---|---|"]
    for what, bar, found, met in rows(done):
        mark = "" if met is None else "met" if met else "missed" if found else ""
        lines.append(f"| {what} | {bar} | {found or 'not run'} | {mark} |")
    return "\n".join(lines)
