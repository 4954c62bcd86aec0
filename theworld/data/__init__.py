"""OSD rows on disk to batches: rows, regions, conversation, processor, index, plan, collator, datamodule."""
