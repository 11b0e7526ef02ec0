"""The two-tower that a user of PyTorch would write for speed: EmbeddingBag, sparse gradients, sparse Adagrad.

pytorch.py STEPS.npz USERS ITEMS WIDTH BATCH TEMPERATURE
"""

import os
import time

import torch
from _steps import BATCH, ITEMS, TEMPERATURE, USERS, WIDTH, load, report
from torch.nn import functional

DEVICE = os.environ.get("PEER_DEVICE", "cpu")
torch.set_num_threads(1)
torch.manual_seed(5)


class TwoTower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.user = torch.nn.Embedding(USERS, WIDTH, sparse=True)
        self.item = torch.nn.Embedding(ITEMS, WIDTH, sparse=True)
        self.past = torch.nn.EmbeddingBag(ITEMS, WIDTH, mode="mean", sparse=True)
        for table in (self.user, self.item, self.past):
            torch.nn.init.normal_(table.weight, std=0.1)

    def forward(self, users, history, targets):
        f = functional.normalize(self.user(users) + self.past(history))
        g = functional.normalize(self.item(targets))
        return f @ g.T / TEMPERATURE


data = {name: torch.from_numpy(array).to(DEVICE) for name, array in load().items()}
model = TwoTower().to(DEVICE)
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
labels = torch.arange(BATCH, device=DEVICE)
seconds, losses = [], []
for start in range(0, len(data["users"]), BATCH):
    before = time.perf_counter()
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(*(data[name][start : start + BATCH] for name in data)), labels)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    seconds.append(time.perf_counter() - before)
report(seconds, losses)
