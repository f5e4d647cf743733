"""Run every benchmark."""

from benchmarks import encoder, events, restorer, stages
from benchmarks.face import __main__ as face

for module in (stages, restorer, face, encoder, events):
    module.main()
