import spool_twin

spool_twin.install()
