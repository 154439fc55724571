"""Google's memory figures for Gemma 3.

Sources: Gemma 3 Technical Report (arXiv 2503.19786), table 3, weights alone and with the KV cache at 32,768 tokens; the
load table of ai.google.dev's Gemma documentation; Google's announcements of Gemma 3 1B for mobile and of QAT
checkpoints (developers.googleblog.com, 18 April 2025). Three columns of table 3 follow one formula in all four rows;
all others follow none that is known and are quoted.
"""

from __future__ import annotations

from gemmaq.models.published import PublishedMemory, Report, Table

MEMORY = PublishedMemory(
    publisher="Google",
    tables=(
        Table(
            title="documentation: memory to load, GB",
            date="",
            columns=("fp32", "bf16", "sfp8", "q4_0", "int4", "mobile int4"),
            rows={
                "gemma-3-270m": (None, 0.4, 0.297, 0.24, None, None),
                "gemma-3-1b": (4, 1.5, 1.1, 0.892, 0.861, 0.529),
                "gemma-3-4b": (16, 6.4, 4.4, 3.4, 3.2, None),
                "gemma-3-12b": (48, 20, 12.2, 8.7, 8.2, None),
                "gemma-3-27b": (108, 46.4, 29.1, 21, 19.9, None),
            },
        ),
    ),
    report=Report(
        widths={"bf16": 2.0, "int4": 0.5, "int4_blocks_32": 4.5 / 8, "sfp8": 1.0},
        quoted={"int4_blocks_32": {"gemma-3-1b": 0.7, "gemma-3-4b": 2.9, "gemma-3-12b": 7.1, "gemma-3-27b": 15.3}},
        cache_32k={"gemma-3-1b": 0.9, "gemma-3-4b": 4.7, "gemma-3-12b": 14.9, "gemma-3-27b": 18.7},
    ),
    remarks=(
        "Exact weights differ: 27B has 27.4 billion parameters, and so on; blocks of 32 carry a scale of 16 bits.",
        "The report's KV cache is about six times llama.cpp's, which keeps only the window in five layers of six.",
        "Google's own Q4_0 files are larger than all of these (27B: 17.2 GB), their embedding is F16.",
    ),
    qat="Google says that QAT avoids 54 % of the perplexity rise of Q4_0 (no figure for each size)",
)
