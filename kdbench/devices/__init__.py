"""What a run runs on: the machine's facts, clocks, boards, memory."""
