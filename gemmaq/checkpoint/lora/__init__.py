"""LoRA adapters in PEFT's layout: what their config means, what their files hold, and merging them while streaming."""
