"""How many messages are worked on at a time, and who may begin although others are still at it."""

from __future__ import annotations

from mail_service.amqp.slots import MOST_IN_TURN, Line, Slots

SLOW_S = 0.5


class Work:
    def __init__(self, size: int, spare: int = 0) -> None:
        self.begun: list[object] = []
        self.now = 0.0
        self.slots: Slots[object] = Slots(size, spare, self.begun.append, lambda: self.now, lambda: SLOW_S)

    def add(self, count: int) -> list[object]:
        messages = [object() for _ in range(count)]
        for message in messages:
            self.slots.add(message)
        return messages


def test_no_more_than_the_size_are_begun_and_the_next_when_one_is_done() -> None:
    work = Work(2)
    first, second, third, fourth = work.add(4)
    assert work.begun == [first, second]

    work.slots.done(second)

    assert work.begun == [first, second, third]
    assert fourth not in work.begun


def test_slow_ones_lend_their_slots_up_to_the_spare_ones() -> None:
    work = Work(2, spare=3)
    work.add(10)
    work.now = SLOW_S + 0.1
    work.slots.begin()
    assert len(work.begun) == 4

    work.now += SLOW_S + 0.1
    work.slots.begin()

    assert len(work.begun) == 5 == work.slots.most


def test_without_spare_slots_slow_ones_keep_theirs() -> None:
    work = Work(2)
    work.add(10)
    work.now = 100

    work.slots.begin()

    assert len(work.begun) == 2


def test_what_was_not_begun_can_be_given_up() -> None:
    work = Work(2)
    messages = work.add(5)

    assert work.slots.forget(Line.NEW, Line.AGAIN) == messages[2:]
    assert not work.slots.any_wait
    work.slots.done(messages[0])
    assert len(work.begun) == 2


def test_the_lines_take_turns() -> None:
    begun: list[str] = []
    slots = Slots[str](1, 0, begun.append, lambda: 0.0, lambda: SLOW_S)
    for message in ("running", "a", "b"):
        slots.add(message)
    slots.add("x", Line.TURN)
    slots.add("y", Line.TURN)
    for message in ("k", "l", "m"):
        slots.add(message, Line.AGAIN)

    for _ in range(8):
        slots.done(begun[-1])

    assert begun == ["running", "k", "x", "a", "l", "y", "b", "m"]


def test_what_is_new_does_not_wait_for_a_crowd_that_comes_again() -> None:
    begun: list[object] = []
    slots = Slots[object](1, 0, begun.append, lambda: 0.0, lambda: SLOW_S)
    for number in range(1000):
        slots.add(number, Line.AGAIN)
    slots.add("new")

    slots.done(begun[-1])

    assert begun == [0, "new"]


def test_there_is_room_for_a_few_whose_turn_it_is() -> None:
    slots = Slots[int](1, 0, lambda _message: None, lambda: 0.0, lambda: SLOW_S)
    slots.add(0)

    for number in range(MOST_IN_TURN):
        assert slots.has_room
        slots.add(number, Line.TURN)

    assert not slots.has_room


def test_each_line_is_given_up_on_its_own() -> None:
    slots = Slots[str](1, 0, lambda _message: None, lambda: 0.0, lambda: SLOW_S)
    for message, line in (("running", Line.NEW), ("a", Line.NEW), ("x", Line.TURN)):
        slots.add(message, line)

    assert (slots.forget(Line.NEW), slots.forget(Line.TURN)) == (["a"], ["x"])
    assert slots.are_taken


def test_thousands_that_give_their_slot_back_at_once_are_all_begun() -> None:
    begun: list[int] = []
    running = 999_999

    def begin(message: int) -> None:
        begun.append(message)
        if message != running:
            slots.done(message)

    slots = Slots[int](1, 0, begin, lambda: 0.0, lambda: SLOW_S)
    numbers = [1_000_000 + number for number in range(5_000)]
    for number in (running, *numbers):
        slots.add(number)
    assert begun == [running]

    slots.done(running)

    assert begun == [running, *numbers]
