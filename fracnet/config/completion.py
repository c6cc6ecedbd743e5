"""Tab completion in bash, of `fracnet COMMAND ...` and of `python -m fracnet.COMMAND ...`.

Hydra knows what to propose; its own script for bash serves neither of the two.
"""

from collections.abc import Sequence
from pathlib import Path

NOT_COMMANDS = ("__init__", "__main__", "api")
INSTALL = r"""_fracnet() {
    local line="${COMP_LINE:0:COMP_POINT}" words typed
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    local word="${words[-1]}" ask=()
    if [[ "${words[0]##*/}" == fracnet ]]; then
        ask=("${words[@]:0:2}") typed="${words[*]:2}"
        if (( ${#words[@]} == 2 )); then
            COMPREPLY=($(compgen -W "@commands@" -- "$word"))
            return
        fi
    elif [[ "${words[1]}" == -m && "${words[2]}" == fracnet* ]]; then
        ask=("${words[@]:0:3}") typed="${words[*]:3}"
        if (( ${#words[@]} == 3 )); then
            COMPREPLY=($(compgen -P fracnet. -W "@commands@" -- "${word#fracnet.}"))
            return
        fi
    else
        return
    fi
    local choices=$(COMP_LINE="fracnet $typed" "${ask[@]}" -sc query=bash 2> /dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}
_FRACNET_BEFORE=$(complete -p python 2> /dev/null)
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _fracnet fracnet python python3
"""
UNINSTALL = """complete -r fracnet python python3
eval "$_FRACNET_BEFORE"
unset -f _fracnet
"""


def completion_script(arguments: Sequence[str]) -> str | None:
    """What `-sc install=bash` and `-sc uninstall=bash` print; None for other arguments."""
    place = next((n for n, a in enumerate(arguments) if a in ("-sc", "--shell-completion")), None)
    given = "" if place is None else "".join(arguments[place + 1 : place + 2])
    if given not in ("install=bash", "uninstall=bash"):
        return None
    folder = Path(__file__).parents[1]
    commands = sorted(p.stem for p in folder.glob("*.py") if p.stem not in NOT_COMMANDS)
    script = INSTALL if given == "install=bash" else UNINSTALL
    return script.replace("@commands@", " ".join(commands))
