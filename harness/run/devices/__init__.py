"""Where jobs run: local, ssh://[user@]host[:port], adb://[serial], web://[address][:port]."""
