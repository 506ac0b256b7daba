import os
import sys
from pathlib import Path

# PyTorch's threads wait by spinning: beside other work a test of 9 s took 196
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))  # tests share models.py and fuzzing.py
