"""The gate: did learning, loss, cost or speed get worse between two stores? Reads results alone, never torch."""
