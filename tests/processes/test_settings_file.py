"""config.yaml as a process reads it that knows neither nameko nor eventlet, such as the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_is_read_as_nameko_reads_it_and_without_eventlet(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text('a: ${X_A:1}\nb: !env_var "${X_B:[1, 2]}"\nc: !raw_env_var "${X_C:0123}"\nd: "${X_D}"\n')
    code = (
        "import sys; from mail_service.settings import load_config_file, load_settings; load_settings({});"
        "config = load_config_file(sys.argv[1]);"
        "assert not {'eventlet', 'greenlet', 'kombu'} & set(sys.modules), 'imported too much';"
        "print(config == {'a': 7, 'b': [1, 2], 'c': '0123', 'd': '${X_D}'})"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        env={**os.environ, "X_A": "7"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("True\n", "")
