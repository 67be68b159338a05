"""How devices get their identity over MQTT: by claim, just in time, with approval, until they are active and configured."""
