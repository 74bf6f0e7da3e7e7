"""Text and images as arrays: readers, tokenizers and batches."""
