"""Files of real runs: what is no trace and no timeline is one clear line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from dualpipe_sim import UserError
from dualpipe_sim.calibration import calibrate


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must begin with the line rank,lane,task,start_s,end_s, perhaps with ,host_start_s,host_end_s, got ''"),
        ("{", "is no JSON: Expecting property name enclosed in double quotes, line 1, column 2;"),
        ("{}", "has no list 'traceEvents'"),
        ("[]", "no op was found; ranges must be named 'PP:' + action, or be mapped by --map"),
        ("[3]", "event 0 is 3, not a mapping of keys"),
        ('{"traceEvents": [], "baseTimeNanoseconds": "x"}', "baseTimeNanoseconds must be a whole number, got 'x'"),
        ('[{"ph": "X", "cat": "kernel", "name": "k", "ts": "x"}]', "event 0 ('k'): ts must be microseconds, got 'x'"),
        ('[{"ph": "X", "cat": "user_annotation", "name": "PP:boo", "ts": 1}]', "1 PP: ranges that name no action"),
        ("rank,lane,task,start_s,end_s\n0,compute,0F0,0\n", "line 2: must have 5 cells"),
        ("rank,lane,task,start_s,end_s\n0,gpu,0F0,0,1\n", "alltoall, send, recv, copy, data, got 'gpu'"),
        ("rank,lane,task,start_s,end_s\n-1,compute,0F0,0,1\n", "line 2: rank must be a whole number, got '-1'"),
        ("rank,lane,task,start_s,end_s\n0,compute,0X0,0,1\n", "line 2: '0X0' is no task"),
        ("rank,lane,task,start_s,end_s\n0,compute,0F0,0,nan\n", "line 2: end_s must be a number of seconds, got 'nan'"),
        ("rank,lane,task,start_s,end_s\n0,compute,0F0,2,1\n", "line 2: 0F0 ends at 1.0 s, before it starts at 2.0 s"),
        ("rank,lane,task,start_s,end_s\n", "no op was found"),
        ('rank,lane,task,start_s,end_s\n0,"comp', "line 2: is no CSV"),
    ],
)  # fmt: skip
def test_junk_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "junk.txt"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        calibrate([file])
    assert str(refused.value).startswith(f"{file}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_cannot_be_read_are_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[" + b"1," * 999)[:-20])
    (tmp_path / "bytes.json").write_bytes(b'{"traceEvents": "\xff"}')
    for name, said in (
        ("none.json", "No such file"),
        ("cut.json.gz", "cut off"),
        ("bytes.json", "not UTF-8"),
        ("", "is a folder"),
    ):
        with pytest.raises(UserError, match=said):
            calibrate([tmp_path / name])
