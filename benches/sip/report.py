"""The table that a bench makes."""


class Report:
    """Rows as they are measured, and the markdown that they make. Unclean figures carry a mark, so that nobody quotes them."""

    def __init__(self):
        self.rows = []

    def note(self, text):
        print("   ", text, flush=True)

    def add(self, what, theirs, ours, ratio, bar, met):
        self.rows.append((what, theirs, ours, ratio, bar, {True: "yes", False: "**no**", None: ""}[met]))
        print(" | ".join(str(c) for c in self.rows[-1]), flush=True)

    @staticmethod
    def cell(value, unit):
        if value is None:
            return "-"
        number, clean = value
        return (f"{number:,.0f}" if number >= 200 else f"{number:.1f}") + f" {unit}" + ("" if clean else " (!)")

    def compare(self, what, cost, unit, bar):
        theirs, ours = cost.get("kamailio"), cost.get("isthmus")
        self.against(what, theirs, ours, unit, bar, f"{bar}x")

    def pair(self, what, ours, base, unit, bar):
        self.against(what + " (left: behind)", base, ours, unit, bar, f"{bar}x")

    def against(self, what, theirs, ours, unit, bar, bar_text):
        ratio = ours[0] / theirs[0] if theirs and ours and theirs[0] > 0 else None
        met = None if ratio is None else ratio <= bar and ours[1]
        self.add(what, self.cell(theirs, unit), self.cell(ours, unit), "-" if ratio is None else f"{ratio:.2f}x", f"at most {bar_text}", met)

    def rate(self, what, rates, bar):
        theirs, ours = rates.get("kamailio"), rates.get("isthmus")
        ratio = f"{ours / theirs:.2f}x" if ours and theirs else "-"
        self.add(what, f"{theirs:,}/s" if theirs is not None else "-", f"{ours:,}/s" if ours is not None else "-", ratio,
                 f"at least {bar:,}/s", None if ours is None else ours >= bar)

    def factor(self, what, factor, bar, clean):
        text = f"{factor:.2f}x" + ("" if clean else " (!)")
        ours = bar is not None
        self.add(what, "-" if ours else text, text if ours else "-", "-", f"at least {bar}x" if ours else "-", factor >= bar and clean if ours else None)

    def absolute(self, what, cost, unit, limit):
        ours = cost.get("isthmus")
        theirs = cost.get("kamailio")
        ratio = f"{ours[0] / theirs[0]:.2f}x" if ours and theirs else "-"
        self.add(what, self.cell(theirs, unit), self.cell(ours, unit), ratio, f"at most {limit} {unit}", ours and ours[0] <= limit)

    def markdown(self):
        head = ("operation", "Kamailio", "Isthmus", "ratio", "bar", "met")
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in self.rows]) + "\n"
