"""Lanes: the waiting stages of one user and one kind. They share each kind's servers fairly, by virtual time."""

from __future__ import annotations


def enter_lane(source: str, *, kind: str, user: str, position: str, count: str = "1", refund: str = "0") -> str:
    """Return the SQL that adds `count` waiting rows of `source` to their lanes; `position` is the lowest of them.

    `refund` is what a lane that there is gets back of what it was charged.

    A lane that begins to wait starts where the others stand (the lowest virtual time of those that wait or, when none
    does, the highest ever reached), so that nobody saves up turns by staying away.
    """
    return f"""
    INSERT INTO lanes AS lane (kind, user_id, waiting, virtual_time, head_position)
    SELECT {kind}, {user}, {count}, coalesce(
      (SELECT o.virtual_time FROM lanes o WHERE o.kind = {kind} AND o.waiting > 0 ORDER BY o.virtual_time LIMIT 1),
      (SELECT o.virtual_time FROM lanes o WHERE o.kind = {kind} ORDER BY o.virtual_time DESC LIMIT 1),
      0), {position}
    {source}
    ON CONFLICT (kind, user_id) DO UPDATE SET
      waiting = lane.waiting + excluded.waiting,
      virtual_time = CASE WHEN lane.waiting > 0 THEN lane.virtual_time - {refund}
                          ELSE greatest(lane.virtual_time - {refund}, excluded.virtual_time) END,
      head_position = CASE WHEN lane.waiting > 0 THEN least(lane.head_position, excluded.head_position)
                           ELSE excluded.head_position END
    """
