"""pgbench on a host, as an application that nobody here wrote: it knows nothing of a move.

Each of its transactions moves an amount: in an account, a teller and a branch, and writes it down
in a history (TPC-B). Whatever is lost or doubled makes the four sums differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.support.host import Host

_UNIT = "tests-bank"
_ENVIRONMENT = ". /etc/shop/environment; program=$(ls /usr/lib/postgresql/*/bin/pgbench | tail -1);"

SUMS = """
SELECT sum(abalance) FROM pgbench_accounts
UNION ALL SELECT sum(tbalance) FROM pgbench_tellers
UNION ALL SELECT sum(bbalance) FROM pgbench_branches
UNION ALL SELECT sum(delta) FROM pgbench_history
"""


@dataclass(frozen=True)
class Bank:
    """It runs on a host, through the pooler there, until it is stopped."""

    host: Host
    rate: int = 20

    def open(self, scale: int = 1) -> None:
        """Make its tables anew, and begin."""
        self.host.run(f'{_ENVIRONMENT} "$program" -qi -s {scale} "$DATABASE_URL"', seconds=600)
        # A unit of its own, which outlives this connection.
        self.host.run(
            f"systemd-run --unit={_UNIT} --collect bash -c '{_ENVIRONMENT}"
            f' exec "$program" -n -c 4 -R {self.rate} -T 7200 -P 2 "$DATABASE_URL"\''
        )

    def close(self) -> None:
        self.host.run(f"systemctl stop {_UNIT}", check=False)

    def said(self) -> str:
        """All that it has printed: every two seconds its rate, its latency and what failed."""
        return self.host.run(f"journalctl -o cat -u {_UNIT} --no-pager")

    def slowest_ms(self) -> float:
        """The highest mean of two seconds."""
        return max(float(found) for found in re.findall(r"lat ([0-9.]+) ms", self.said()))

    def is_right(self) -> None:
        """No transaction failed, it still runs, and the four sums are the same."""
        said = self.said()
        assert self.host.run(f"systemctl is-active {_UNIT}", check=False).strip() == "active", said
        failed = re.findall(r"(\d+) failed", said)
        assert len(failed) > 2, said
        assert set(failed) == {"0"}, said
        assert not re.search(r"(?i)error|abort|fatal", said), said
        # In one statement, so that it sees one moment.
        sums = self.host.run(f'{_ENVIRONMENT} psql -XAtq "$DATABASE_URL"', data=SUMS).split()
        assert len(sums) == 4, sums
        assert len(set(sums)) == 1, sums
