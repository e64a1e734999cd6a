# %% [markdown]
# # Compress a network from a notebook
#
# A small CNN is trained here for a few seconds, sent to a BasisConv service, and comes back with half of its
# operations. Needed beside this notebook: `pip install ./client`, torch, numpy, and a service (`make run`)
# that you are signed in to:
#
# ```sh
# basisconv login http://127.0.0.1:8000 --key-file var/api-key
# ```

# %%
from pathlib import Path

import numpy as np
import torch
from torch import nn

import basisconv_client.torch
from basisconv_client import Client

# %% [markdown]
# ## A network of one's own
#
# Handwritten digits of 8×8 pixels, as they come with this project.

# %%
here = Path("examples") if Path("examples/digits.npz").exists() else Path()
with np.load(here / "digits.npz") as digits:
    x_train, x_test = (
        torch.from_numpy(digits[name])[:, None, :, :, 0] / 255 for name in ("x_train", "x_test")
    )
    y_train, y_test = (torch.from_numpy(digits[name]).long() for name in ("y_train", "y_test"))
x_train.shape, x_test.shape

# %%
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(1, 24, 3, padding=1),
    nn.BatchNorm2d(24),
    nn.ReLU(),
    nn.Conv2d(24, 32, 3, padding=1, stride=2),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.Conv2d(32, 32, 3, padding=1),
    nn.BatchNorm2d(32),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, 10),
)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
for _ in range(6):
    for batch in torch.randperm(len(x_train)).split(64):
        loss = nn.functional.cross_entropy(net(x_train[batch]), y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
net.eval()


def accuracy(network: nn.Module) -> float:
    with torch.no_grad():
        return float((network(x_test).argmax(1) == y_test).float().mean())


print(f"accuracy {accuracy(net):.2%}")

# %% [markdown]
# ## Half of the operations
#
# The images go along: the service fits the smaller network to the answers of this one, and judges it by the
# test images. What is on the service already is not sent again, so running this cell twice uploads once.

# %%
images = (x_train.numpy(), y_train.numpy(), x_test.numpy(), y_test.numpy())
small, job = basisconv_client.torch.compress(net, x_test[:2], images, macs=0.5, name="digits")

# %% [markdown]
# `small` is an `nn.Module`; the service measured it, and so can we.

# %%
before, after = job.result.original, job.result.compressed
print(f"MACs      {before.macs:>9,} -> {after.macs:>9,}  ({after.macs / before.macs:.0%})")
print(f"accuracy  {before.accuracy:>9.2%} -> {after.accuracy:>9.2%}  as the service measured it")
print(f"accuracy  {accuracy(net):>9.2%} -> {accuracy(small):>9.2%}  here")

# %% [markdown]
# ## What would a third leave?
#
# A plan tells what to expect of every layer, before anything is made.

# %%
with Client() as client:
    plan = client.plan(job.model, job.dataset, macs=0.33)
for layer in plan.layers:
    becomes = f"{layer.form}, rank {layer.rank}" if layer.replaced else f"stays ({layer.reason})"
    print(f"{layer.name:12} {layer.macs_before:>9,} -> {layer.macs:>9,} MACs  {becomes}")
plan.predicted
