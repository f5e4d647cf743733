"""Run every benchmark."""

from benchmarks import restorer, stages

for module in (stages, restorer):
    module.main()
