"""Target health: what health checks and the API's state make of a target. Pure.

States, reason codes and their meaning: Elastic Load Balancing API reference, "TargetHealth";
descriptions are those that AWS answers with.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

DESCRIPTIONS = {
    "Elb.RegistrationInProgress": "Target registration is in progress",
    "Elb.InitialHealthChecking": "Initial health checks in progress",
    "Elb.InternalError": "Target health is unavailable due to an internal error",
    "Target.DeregistrationInProgress": "Target deregistration is in progress",
    "Target.FailedHealthChecks": "Health checks failed",
    "Target.InvalidState": "Target is in the stopped state",
    "Target.NotInUse": ("Target group is not configured to receive traffic from the load balancer"),
    "Target.NotRegistered": "Target is not registered to the target group",
    "Target.Timeout": "Request timed out",
}
_OTHER_ZONE = "Target is in an Availability Zone that is not enabled for the load balancer"


@dataclass(frozen=True)
class Check:
    """How the targets of a group are checked. Times in seconds.

    proxy: a header of the proxy protocol comes first.
    """

    protocol: str = "HTTP"
    path: str = "/"
    matcher: str = "200"
    interval: int = 30
    timeout: int = 5
    healthy: int = 5
    unhealthy: int = 2
    proxy: bool = False


@dataclass(frozen=True)
class Outcome:
    """How one health check ended: well if there is no reason."""

    reason: str = ""
    description: str = ""

    @property
    def well(self) -> bool:
        """Say whether the target passed."""
        return not self.reason


PASSED = Outcome()
TIMED_OUT = Outcome("Target.Timeout", DESCRIPTIONS["Target.Timeout"])
FAILED = Outcome("Target.FailedHealthChecks", DESCRIPTIONS["Target.FailedHealthChecks"])


def mismatch(code: int) -> Outcome:
    """Return the outcome of a check that was answered with another code than wanted."""
    return Outcome(
        "Target.ResponseCodeMismatch", f"Health checks failed with these codes: [{code}]"
    )


def matches(matcher: str, code: int) -> bool:
    """Say whether a code is among those that a matcher names, e.g. `200,301-302`."""
    for part in matcher.split(","):
        first, _, last = part.strip().partition("-")
        if int(first) <= code <= int(last or first):
            return True
    return False


@dataclass(frozen=True)
class View:
    """What one node of a load balancer has seen of a target."""

    state: str = "initial"
    passed: int = 0
    failed: int = 0
    outcome: Outcome = PASSED
    checked: bool = False

    def after(self, outcome: Outcome, check: Check) -> View:
        """Return the view after one more check.

        A new target is healthy once it passed one check; one that was unhealthy must pass as many
        in a row as the group says (Application Load Balancers user guide, "Health checks for
        Application Load Balancer target groups").
        """
        passed, failed = (self.passed + 1, 0) if outcome.well else (0, self.failed + 1)
        state = self.state
        if outcome.well:
            if state == "initial" or passed >= check.healthy:
                state = "healthy"
        elif failed >= check.unhealthy:
            state = "unhealthy"
        last = outcome if not outcome.well or state != "unhealthy" else self.outcome
        return View(state, passed, failed, last, checked=True)


@dataclass(frozen=True)
class Health:
    """A target's health as the API tells it."""

    state: str
    reason: str = ""
    description: str = ""

    @classmethod
    def of(cls, state: str, reason: str) -> Health:
        """Return a state with a reason and its usual description."""
        return cls(state, reason, DESCRIPTIONS[reason])


NOT_REGISTERED = Health.of("unused", "Target.NotRegistered")


@dataclass(frozen=True)
class Situation:
    """What the API knows of a registered target, other than its checks.

    zones: those that its group's load balancers have enabled. zone: the target's; None is any.
    """

    draining: bool = False
    attached: bool = True
    stopped: bool = False
    zone: str | None = None
    zones: Collection[str] = ()

    @property
    def unused(self) -> Health | None:
        """Why the target gets neither requests nor checks, if so."""
        if self.draining:
            return Health.of("draining", "Target.DeregistrationInProgress")
        if not self.attached:
            return Health.of("unused", "Target.NotInUse")
        if self.stopped:
            return Health.of("unused", "Target.InvalidState")
        if self.zone is not None and self.zone not in self.zones:
            return Health("unused", "Target.NotInUse", _OTHER_ZONE)
        return None


def health(situation: Situation, views: Collection[View], blind: bool = False) -> Health:
    """Return a target's health from what the nodes in service have seen.

    Each node checks for itself, so a target is healthy once it is for all of them. blind: there
    were nodes, and none of them works.
    """
    if unused := situation.unused:
        return unused
    if blind:
        return Health.of("unavailable", "Elb.InternalError")
    ill = next((view for view in views if view.state == "unhealthy"), None)
    if ill:
        return Health("unhealthy", ill.outcome.reason, ill.outcome.description)
    if views and all(view.state == "healthy" for view in views):
        return Health("healthy")
    if any(view.checked for view in views):
        return Health.of("initial", "Elb.InitialHealthChecking")
    return Health.of("initial", "Elb.RegistrationInProgress")


def chosen(states: dict[str, str]) -> set[str]:
    """Return which targets get requests, by their states as a node has seen them.

    If none is healthy all get some: a load balancer fails open (Application Load Balancers user
    guide, "Target group health").
    """
    healthy = {name for name, state in states.items() if state == "healthy"}
    return healthy or set(states)
