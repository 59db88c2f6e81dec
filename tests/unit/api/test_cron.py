"""When a schedule is due, in zones with summer time and without."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polder.api.cron import CronError, parse_schedule


def times(text: str, at: str, zone: str, count: int) -> list[str]:
    where = ZoneInfo(zone)
    now, found = datetime.fromisoformat(at).replace(tzinfo=where), []
    for _ in range(count):
        then = parse_schedule(text).after(now, where)
        if then is None:
            return [*found, "never"]
        found.append(then.astimezone(where).isoformat(timespec="minutes"))
        now = then
    return found


@pytest.mark.parametrize(
    ("text", "at", "wanted"),
    [
        ("*/20 * * * *", "2026-01-31T23:30:00", ["2026-01-31T23:40", "2026-02-01T00:00"]),
        ("0 0 29 feb *", "2026-09-04T12:00:00", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("59 23 31 2 *", "2026-09-04T12:00:00", ["never"]),
        ("@monthly", "2026-11-04T12:00:00", ["2026-12-01T00:00", "2027-01-01T00:00"]),
        ("30 6-16/4 * * 1-5", "2026-01-02T14:31:00", ["2026-01-05T06:30", "2026-01-05T10:30"]),
        ("@every 90m", "2026-01-01T00:00:00", ["2026-01-01T01:30", "2026-01-01T03:00"]),
        ("0 12 13 * fri", "2026-09-04T12:00:00", ["2026-09-11T12:00", "2026-09-13T12:00"]),
        ("0 12 * * sun", "2026-09-04T12:00:00", ["2026-09-06T12:00", "2026-09-13T12:00"]),
    ],
)
def test_times_follow_each_other(text, at, wanted):
    assert times(text, at, "UTC", len(wanted)) == [f"{one}+00:00" if one != "never" else one for one in wanted]


def test_an_hour_that_is_left_out_is_left_out_and_one_that_comes_twice_counts_twice():
    spring = times("30 2 * * *", "2026-03-07T12:00:00", "America/New_York", 1)
    assert spring == ["2026-03-09T02:30-04:00"]
    autumn = times("30 1 * * *", "2026-10-31T12:00:00", "America/New_York", 3)
    assert autumn == ["2026-11-01T01:30-04:00", "2026-11-01T01:30-05:00", "2026-11-02T01:30-05:00"]


def test_a_midnight_that_there_is_not_is_left_out():
    assert times("0 0 * * *", "2026-09-05T12:00:00", "America/Santiago", 1) == ["2026-09-07T00:00-03:00"]


def test_half_an_hour_of_summer_time():
    found = times("*/20 * * * *", "2026-04-05T01:20:00", "Australia/Lord_Howe", 3)
    assert found == ["2026-04-05T01:40+11:00", "2026-04-05T01:40+10:30", "2026-04-05T02:00+10:30"]


def test_a_zone_in_the_text_is_noted():
    assert parse_schedule("CRON_TZ=Europe/Berlin 0 1 * * *").zone == "Europe/Berlin"
    with pytest.raises(CronError, match="at most 4096 characters"):
        parse_schedule(f"{'0,' * 3000}0 * * * *")
    with pytest.raises(CronError, match="too many slashes"):
        parse_schedule("*/2/3 * * * *")


FIELDS = st.tuples(
    st.sampled_from(["*", "*/7", "0", "59", "3-50/9", "5,6"]),
    st.sampled_from(["*", "*/5", "0", "2", "23", "1-3"]),
    st.sampled_from(["*", "1", "31", "*/10"]),
    st.sampled_from(["*", "3", "10,11"]),
    st.sampled_from(["*", "0", "1-5"]),
)


@settings(max_examples=60, deadline=None)
@given(FIELDS, st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo"]), st.integers(0, 500_000))
def test_no_time_between_is_passed_over(fields, name, minutes):
    """Compared with going through the minutes one by one."""
    zone, text = ZoneInfo(name), " ".join(fields)
    schedule = parse_schedule(text)
    now = datetime.fromtimestamp(1_767_225_600 + minutes * 60, UTC)
    found = schedule.after(now, zone)
    assert found is None or found > now
    for step in range(1, 2000):
        at = datetime.fromtimestamp(now.timestamp() + step * 60, UTC)
        local = at.astimezone(zone)
        day = (local.day in schedule.days, local.isoweekday() % 7 in schedule.weekdays)
        fits = any(day) if schedule.either else all(day)
        if (
            fits
            and local.month in schedule.months
            and local.hour in schedule.hours
            and local.minute in schedule.minutes
        ):
            assert found == at
            return
    assert found is None or (found - now).total_seconds() >= 2000 * 60
