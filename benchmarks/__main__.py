"""Run every benchmark."""

from benchmarks import encoder, restorer, stages

for module in (stages, restorer, encoder):
    module.main()
