"""A run that is resumed as another run than it was: refused with what differs, or gone on with, and written down."""

from __future__ import annotations

from lightning.pytorch import Callback, Trainer

from theworld.training.events import record
from theworld.training.fingerprint import Fingerprint, as_fingerprint, differences, fingerprint
from theworld.training.module import TheWorldModule

KEY = "fingerprint"


class DriftRefusal(Callback):
    """Keeps a fingerprint of settings, tokenizer, image processor and code in checkpoints, and compares it at a resume.

    Writes an event `resumed` with checkpoint, step, and number of ranks before and now; if drift is allowed, `drift`.

    Args:
        allow: Go on with the new ones; what cannot be loaded at all, and changed data, are refused even so.
    """

    def __init__(self, *, allow: bool = False) -> None:
        self.allow = allow
        self._own: Fingerprint | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: TheWorldModule) -> None:
        """Take the fingerprint once; saving must not wait for it."""
        self._own = fingerprint(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: TheWorldModule, checkpoint: dict[str, object]) -> None:
        """Put it beside the weights."""
        assert self._own is not None, "a checkpoint of a run that has begun"
        checkpoint[KEY] = self._own
        checkpoint["world_size"] = trainer.world_size

    def on_load_checkpoint(self, trainer: Trainer, pl_module: TheWorldModule, checkpoint: dict[str, object]) -> None:
        """Compare, before the first step.

        Raises:
            ValueError: Something differs and is not allowed to.
        """
        saved = as_fingerprint(checkpoint.get(KEY))
        changed = differences(saved, fingerprint(trainer, pl_module)) if saved is not None else []
        if saved is None:
            pl_module.print("The checkpoint holds no fingerprint of settings and code; they are not compared")
        if changed:
            lines = "\n  ".join(changed)
            if not self.allow:
                raise ValueError(
                    f"found {len(changed)} differences between the run that wrote the checkpoint and this one, "
                    f"expected none:\n  {lines}\nRestore them, or add --allow_drift to go on, which is written down"
                )
            pl_module.print(f"Going on with {len(changed)} differences from the checkpoint:\n  {lines}")
        if trainer.is_global_zero:
            self._record(trainer, checkpoint, changed)

    def _record(self, trainer: Trainer, checkpoint: dict[str, object], changed: list[str]) -> None:
        root, step = trainer.default_root_dir, checkpoint["global_step"]
        facts = {"checkpoint": str(trainer.ckpt_path), "epoch": checkpoint["epoch"]}
        sizes = {"world_size_before": checkpoint.get("world_size"), "world_size": trainer.world_size}
        record(root, "resumed", step=step, **facts | sizes)
        if changed:
            record(root, "drift", step=step, differences=changed)
