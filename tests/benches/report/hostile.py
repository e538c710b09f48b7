"""Results whose every text is an attack."""

ATTACK = """"'></td><script>document.title="stolen"</script><img src=x onerror=document.title="stolen">|`\n# h"""
ATTACK += "x" * 300  # a word that is wider than a screen

_KEPT = ("command", "kind", "name_of_stage", "convention")


def hostile(value, key=""):
    """The same result with each text replaced, but for those that say what it is."""
    if isinstance(value, dict):
        return {name: hostile(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [hostile(item, key) for item in value]
    return ATTACK if isinstance(value, str) and key not in _KEPT else value
