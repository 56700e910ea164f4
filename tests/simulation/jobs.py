"""What users want: executions, and what is done with each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from simulation.documents import EXCLUSIVE, STORIES, TAILS, Story
from wf_api.idempotency import Idempotency

if TYPE_CHECKING:
    import random

    from simulation.world import World

_CANCELLED, _PAUSED, _RETRIED = 0.15, 0.3, 0.4
_ALL_EXCLUSIVE, _ALL_TAILS = 0.1, 0.25
_EARLY, _TWICE = 0.3, 0.3
_MOST_SECONDS, _PAUSE_SECONDS = 4.0, 2.0


@dataclass
class Deed:
    """A command that is sent once everything before it was answered, `after` seconds later."""

    verb: str
    key: str
    after: float
    name: str = ""
    """Of a signal."""
    early: bool = False
    """Before the execution is started."""
    times: int = 1
    """How often it is sent, always under the same key."""
    done: bool = False
    refused: bool = False
    """The last answer was that the execution's state does not allow it."""


@dataclass
class Asking:
    """An approval as its user knows it: the newest attempt that was seen asking, and how many answers were taken."""

    attempt: int = 0
    answers: int = 0


@dataclass
class Job:
    """One execution that somebody wants. What was answered is true here."""

    key: str
    execution_id: str
    story: Story = field(repr=False)
    at: float
    triggers: bool
    deeds: list[Deed]
    retries: int
    from_first: bool
    """Tries again from a node that may have completed, too."""
    created: bool = False
    started: bool = False
    ended: bool = False
    retried: int = 0
    retrying: bool = False
    """It was asked for, and not answered yet."""
    repeated: int = 0
    asks: dict[str, Asking] = field(init=False)
    """By approval."""
    tries: int = 0
    given_up: bool = False
    promised: bool = False
    """The answer was that it will be carried out, once the log is back."""

    @property
    def is_done(self) -> bool:
        """Whether the user got what they wanted."""
        return self.given_up or self.ended

    @property
    def may_give_up(self) -> bool:
        """Whether it ends by itself, once it was started."""
        return not self.story.approvals and all(deed.verb == "cancel" for deed in self.deeds)

    def __post_init__(self) -> None:
        self.asks = {node: Asking() for node in self.story.approvals}


def jobs(world: World, count: int, seconds: float) -> list[Job]:
    """The executions of a run, spread over the first seconds of the storm."""
    draw = world.random.random
    stories = EXCLUSIVE if draw() < _ALL_EXCLUSIVE else TAILS if draw() < _ALL_TAILS else STORIES
    made = []
    for n in range(count):
        key = f"{world.name}-{world.seed}-{n}".replace(" ", "-")
        story = world.random.choice(stories)
        made.append(
            Job(
                key=key,
                execution_id=Idempotency(key).execution_ids(world.settings.partitions, 0, 1)[0],
                story=story,
                at=draw() * seconds,
                triggers=draw() < 0.7,
                deeds=_deeds(key, story, world.random),
                retries=int(draw() < _RETRIED),
                from_first=bool(story.first) and draw() < 0.4,
            )
        )
    return made


def _deeds(key: str, story: Story, chance: random.Random) -> list[Deed]:
    """Signals, a pause and its end, a cancellation, in any order."""
    draw = chance.random
    deeds = [
        Deed(
            "signal",
            f"{key}-{name}",
            draw(),
            name,
            early=draw() < _EARLY,
            times=1 + (draw() < _TWICE),
        )
        for name in story.signals
    ]
    chance.shuffle(deeds)
    if draw() < _PAUSED:
        at = chance.randint(0, len(deeds))
        deeds.insert(at, Deed("pause", f"{key}-pause", draw() * _MOST_SECONDS))
        deeds.insert(chance.randint(at + 1, len(deeds)), Deed("resume", f"{key}-resume", draw() * _PAUSE_SECONDS))
    if draw() < _CANCELLED:
        deeds.insert(chance.randint(0, len(deeds)), Deed("cancel", f"{key}-cancel", draw() * _MOST_SECONDS))
    return deeds
