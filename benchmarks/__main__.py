"""Run every benchmark."""

from benchmarks import encoder, events, restorer, stages

for module in (stages, restorer, encoder, events):
    module.main()
