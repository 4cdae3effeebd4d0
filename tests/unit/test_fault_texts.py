"""Faults as they are typed."""

import pytest

from hookbench.errors import SettingError
from hookbench.faults.process import Kill, Pause
from hookbench.faults.slow_handler import SlowHandler
from hookbench.faults.texts import parse_fault_text, parse_fault_texts
from hookbench.faults.wire_fault import Wire


def test_a_schedule():
    assert parse_fault_texts(
        "kill worker-0 at=3; pause nats at=5.5 for=2;\n slow_handler workers for=3 service_ms=50;"
    ) == (
        Kill(target="worker-0", at_s=3),
        Pause(target="nats", at_s=5.5, for_s=2),
        SlowHandler(target="workers", at_s=0.0, for_s=3, service_ms=50),
    )
    assert parse_fault_texts(" ; ") == ()


def test_what_a_kind_needs_is_given_by_name():
    fault = parse_fault_text("wire producers-nats action=partition refuse=true for=1 phase_index=2")
    assert isinstance(fault, Wire)
    assert (fault.refuse, fault.phase_index) == (True, 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kill", "use KIND TARGET name=value"),
        ("kill at=3", "use KIND TARGET name=value"),
        ("kil worker-0", "unknown fault 'kil' (did you mean 'kill'?)"),
        ("kill worker-0 3", "'3': use name=value"),
        ("kill worker-0 in=3", "unknown key 'in' of fault 'kill'"),
        ("kill worker-0 at=3 at_s=4", "at_s is given twice"),
        ("kill worker-0 target=nats", "target is given twice"),
        ("kill worker-0 at=soon", "Expected `float`, got `str`"),
        ("kill worker-0 at=-1", "use 0 or more"),
        ("pause nats at=1", "pause nats: for_s 0.0: use more than 0"),
    ],
)
def test_what_is_no_fault_is_refused(text, told):
    with pytest.raises(SettingError, match="fault") as refused:
        parse_fault_texts(f"kill worker-1; {text}")
    assert told in str(refused.value)
