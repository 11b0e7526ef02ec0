"""The two-tower model's settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sparkrec.config.base import EventType, Section


class TwoTower(Section):
    """The deep model. Recipes: docs/models.md."""

    # what trains
    ranks: int = Field(2, ge=1, description="Horovod processes")
    threads: int = Field(1, ge=1, description="TensorFlow threads of a rank")
    mode: Literal["user", "position"] = Field("user", description="user: taste; position: what comes next")
    history: Literal["none", "mean", "recency", "cnn", "gru", "lstm", "attention"] = Field(
        "mean", description="the user tower's history encoder"
    )
    layers: int = Field(2, ge=1, description="of cnn, gru, lstm and attention")
    attention_heads: int = Field(2, ge=1, description="of attention; must divide width")
    user_id: bool = Field(True, description="an embedding row a user; without it unseen users can be served")
    item_features: bool = Field(True, description="item vector = id row + mean of its feature rows")
    item_mlp: bool = Field(False, description="a residual MLP over the item's sum of rows")
    id_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of a step's items without their id row: new items are placed by features"
    )
    new_items_by_features: bool = Field(
        False, description="items without a training event are served without their id row; with id_dropout in any case"
    )
    event_types: bool = Field(True, description="history items carry an embedding of their event type")
    width: int = Field(64, ge=1, description="of every vector")
    max_history: int = Field(50, ge=1, description="newest events that the history encoder sees")
    loss: Literal["softmax", "bilateral", "bpr", "mse"] = Field(
        "softmax", description="bilateral: of noisy positives, mode user; bpr: pairs; mse: the stars of a rating"
    )
    temperature: float = Field(0.16, gt=0, description="τ: scores are cosines / τ in training")
    positive_temperature: float = Field(0.32, gt=0, description="loss bilateral: τ among a user's positives")
    dropout: float = Field(0.0, ge=0, lt=1)
    history_keep: float = Field(0.5, gt=0, le=1, description="mode user: share of the history kept in training")
    negatives: int = Field(0, ge=0, description="uniform negatives of a step, shared; 0 without in_batch: all items")
    in_batch: bool = Field(False, description="the targets of the whole batch, of all ranks, are negatives too")
    log_q: bool = Field(True, description="in_batch: scores less the log of how often an item is expected to be drawn")
    user_weight: float = Field(-0.5, le=0, description="weight n^x on each target of a user who has n of them")
    repeats: bool = Field(False, description="mode position: an item the user has met already is a target again")
    weights: dict[EventType, float] = Field(
        {"view": 1.0, "click": 1.0, "cart": 2.0, "purchase": 3.0, "rating": 1.0, "review": 1.0},
        description="loss weight of a target of this type; a type left out is history only",
    )
    head: EventType | None = Field(
        None,
        description="each event type with a weight has a head of its own, and this one's is served; none: one for all",
    )
    # how
    epochs: int = Field(30, ge=1, description="at most, where validation decides")
    batch: int = Field(256, ge=1, description="sequences a step, over all ranks together")
    accumulate: int = Field(1, ge=1, description="parts in which a rank computes its share of a step: less memory")
    learning_rate: float = Field(1e-2, gt=0)
    learning_rate_decay: Literal["none", "linear"] = "none"
    warmup_steps: int = Field(0, ge=0, description="the learning rate rises in a line over so many steps")
    scale_learning_rate: Literal["none", "linear", "sqrt"] = Field(
        "none", description="multiply the learning rate by the number of ranks, or its root: if batch grew with them"
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's, of all that is not updated row by row")
    clip_norm: float = Field(0.0, ge=0, description="largest norm of a step's whole gradient; 0: any")
    placement: dict[str, Literal["replicated_dense", "replicated_sparse", "sharded"]] = Field(
        default_factory=dict,
        description="where tables are kept (item_id, item_feature, history_item, user_id); left out: planned",
    )
    memory_gb: float = Field(4.0, gt=0, description="of a rank, for tables with their optimizer's state; for the plan")
    table_optimizer: Literal["adagrad", "lazy_adam", "sgd"] = Field(
        "adagrad", description="of tables that are updated row by row: row-wise Adagrad, lazy Adam, SGD"
    )
    table_learning_rate: float | None = Field(None, gt=0, description="of those tables; null: learning_rate")
    fp16_rows: bool = Field(False, description="rows and their gradients travel between ranks at half precision")
    prefetch: int = Field(2, ge=0, description="steps that are cut ahead on a thread; 0: none")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the towers' and the scores' products in training; weights and sums stay float32"
    )
    average: float = Field(0.0, ge=0, lt=1, description="moving average of the weights, a step; 0: off")
    seed: int = 17
    select_on_validation: bool = Field(
        True, description="train once without the validation events to choose the epochs, then on everything"
    )
    validation_users: int = Field(5000, ge=1, description="sample on which each epoch is scored")
    patience: int = Field(5, ge=1, description="stop choosing after this many epochs without a better one")
    warm_start: str = Field(
        "none", description="none: from nothing; last: from the newest model on earlier events; or its run's id"
    )
    warm_epochs: int = Field(
        2, ge=1, description="epochs of a warm start, in the place of epochs; validation chooses none"
    )
    replay: float = Field(
        0.2, ge=0, le=1, description="warm start: share of all users, drawn each epoch, whose old events train too"
    )
    # what can go wrong
    checkpoint_epochs: int = Field(1, ge=1)
    checkpoint_steps: int = Field(0, ge=0, description="also inside an epoch, every so many steps; 0: not")
    keep_checkpoints: int = Field(2, ge=1)
    start_timeout_seconds: int = Field(120, ge=1, description="wait for free slots no longer than this")
    timeout_minutes: float = Field(720, gt=0, description="outer limit of the whole training")
    heartbeat_seconds: float = Field(300, gt=0, description="a training of which no rank is heard for so long is hung")
    restarts: int = Field(1, ge=0, description="from the last checkpoint, after a lost rank")
    elastic: bool = Field(False, description="starts, and starts again, on fewer ranks where there is no room for all")
    min_ranks: int = Field(1, ge=1, description="elastic: not on fewer than these")
    network_interface: str | None = Field(None, description="pin Horovod, Gloo and NCCL to this interface, e.g. eth0")
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: a GPU a rank where there are any")
    environment: dict[str, str] = Field(
        default_factory=dict, description="more of a rank's environment, such as NCCL_DEBUG; no secrets"
    )

    @property
    def needed_ranks(self) -> int:
        """Without so many slots there is no training."""
        return self.min_ranks if self.elastic else self.ranks

    @model_validator(mode="after")
    def _a_user_has_a_vector(self) -> TwoTower:
        if self.history == "none" and not self.user_id:
            raise ValueError("history: none with user_id: false leaves nothing to make a user's vector from")
        if self.history == "attention" and self.width % self.attention_heads:
            raise ValueError(
                f"width: {self.width} is no multiple of attention_heads: {self.attention_heads}, which share it"
            )
        return self

    @model_validator(mode="after")
    def _elastic_within_ranks(self) -> TwoTower:
        if self.min_ranks > self.ranks:
            raise ValueError(f"min_ranks: {self.min_ranks} is more than ranks: {self.ranks}, which are all there are")
        return self

    @model_validator(mode="after")
    def _items_and_heads_make_sense(self) -> TwoTower:
        if self.id_dropout and not self.item_features:
            raise ValueError("id_dropout leaves an item to its features, so it needs item_features: true")
        if self.head and not self.weights.get(self.head, 0) > 0:
            raise ValueError(
                f"head: {self.head} is to be served, and weights gives it no loss to learn from. Give it a weight, or "
                f"serve one of {', '.join(name for name, x in self.weights.items() if x > 0)}"
            )
        return self

    @model_validator(mode="after")
    def _the_loss_makes_sense(self) -> TwoTower:
        if self.loss == "bilateral" and self.mode == "position":
            raise ValueError(
                "loss: bilateral weighs a user's positives against each other, and mode: position has one target a "
                "row. Take loss: softmax, which is the same there, or mode: user"
            )
        if self.loss == "bpr" and self.in_batch and self.log_q:
            raise ValueError(
                "loss: bpr compares pairs, which log_q cannot correct: set log_q: false, or in_batch: false"
            )
        if self.loss == "mse":
            if self.negatives or self.in_batch:
                raise ValueError("loss: mse has no negatives: set negatives: 0 and in_batch: false")
            if others := [name for name, x in self.weights.items() if x > 0 and name not in ("rating", "review")]:
                raise ValueError(
                    f"loss: mse learns the stars of ratings and reviews, and weights has {', '.join(others)}: leave "
                    "these out, for instance weights: {rating: 1}"
                )
        return self
