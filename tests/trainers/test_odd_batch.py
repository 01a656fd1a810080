"""PyTorch's own fault that `trainers` goes around; where it strikes, it ends the process."""

import os
import subprocess
import sys

ODD_BATCHES = """
import torch
import trainers

torch.set_num_threads(2)
for channels, extent in ((8, 32), (16, 16)):
    conv = torch.nn.Conv2d(channels, 2 * channels, 1, stride=2, bias=False)
    conv = conv.to(memory_format=torch.channels_last)
    for batch in (3, 5, 11):
        images = torch.randn(batch, channels, extent, extent).contiguous(memory_format=torch.channels_last)
        for _ in range(20):
            conv(images.requires_grad_()).sum().backward()
"""


def test_an_odd_batch_on_two_threads() -> None:
    command, environment = [sys.executable, "-c", ODD_BATCHES], os.environ | {"MALLOC_CHECK_": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
