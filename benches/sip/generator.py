"""SIPp as the load, pinned away from the server, and what its statistics file says afterwards."""
import csv, pathlib, subprocess, time

from subject import DOMAIN

HERE = pathlib.Path(__file__).resolve().parent


class Load:
    """The counts of one finished SIPp run."""

    def __init__(self, row, took, wanted):
        self.ok = int(row["SuccessfulCall(C)"])
        self.failed = int(row["FailedCall(C)"])
        self.retransmissions = int(row["Retransmissions(C)"])
        self.wanted = wanted
        self.took = took

    def clean(self):
        return self.failed == 0 and self.retransmissions == 0 and self.ok == self.wanted

    def __str__(self):
        return f"{self.ok}/{self.wanted} ok, {self.failed} failed, {self.retransmissions} retransmissions in {self.took:.2f} s"


def last_row(stat):
    with open(stat, newline="") as f:
        rows = list(csv.DictReader(f, delimiter=";"))
    return rows[-1]


class Sipp:
    """One SIPp process; `scenario` is one of ours, or a path without its ".xml". `count` calls at `rate` a second for a caller; count None for an answering side, which stop() ends."""

    serial = 0

    def __init__(self, rundir, scenario, target, port, keys, csv_file=None, rate=None, count=None, core="1"):
        Sipp.serial += 1
        self.base = pathlib.Path(rundir) / f"sipp-{Sipp.serial}-{pathlib.Path(scenario).name}"
        self.count = count
        cmd = ["taskset", "-c", core, "sipp", "-sf", str(HERE / "scenarios" / f"{scenario}.xml"), "-i", "127.0.0.1",
               "-p", str(port), "-nostdin", "-trace_stat", "-fd", "1", "-stf", f"{self.base}.csv",
               "-trace_err", "-error_file", f"{self.base}.err", "-buff_size", "4194304", "-timer_resol", "1",
               "-auth_uri", DOMAIN, "-deadcall_wait", "500", "-cp", str(port + 100), "-l", "500000"]
        for key, value in keys.items():
            cmd += ["-key", key, value]
        if csv_file:
            cmd += ["-inf", str(csv_file)]
        if count is not None:
            cmd += ["-r", str(rate), "-m", str(count), "-timeout", f"{int(count / rate) + 20}s", "-timeout_error", target]
        self.started = time.monotonic()
        self.process = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def finish(self):
        limit = 60 + self.count / 1000
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return Load(last_row(f"{self.base}.csv"), time.monotonic() - self.started, self.count)

    def stop(self):
        """Ends an answering side and says (failed, retransmissions)."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        row = last_row(f"{self.base}.csv")
        return int(row["FailedCall(C)"]), int(row["Retransmissions(C)"])
