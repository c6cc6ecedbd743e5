"""Tab completion in bash, zsh and fish, of `fracnet COMMAND` and `python -m fracnet.COMMAND`.

Hydra knows what to propose; its own scripts serve neither of the two. `--hydra-help` gives one
command for bash and zsh, so one script serves both.
"""

from collections.abc import Sequence
from pathlib import Path

NOT_COMMANDS = ("__init__", "__main__", "api")
BASH_OR_ZSH = r"""if [[ -n "$ZSH_VERSION" ]]; then
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    _fracnet() {
        local -a ask choices
        local first=3
        [[ "${words[1]:t}" == fracnet ]] && first=2
        if (( first == 3 )) && [[ "${words[2]}" != -m || "${words[3]}" != fracnet* ]]; then
            ${_fracnet_before:-_default} "$@"
        elif (( CURRENT == first )); then
            choices=(@commands@)
            (( first == 3 )) && choices=("fracnet."${^choices})
            compadd -a choices
        else
            ask=("${(@)words[1,first]}")
            choices=($(COMP_LINE="fracnet ${words[first+1,CURRENT]}" "${ask[@]}" \
                -sc query=bash 2> /dev/null))
            compadd -S '' -a choices || _default
        fi
    }
    [[ "${_comps[python]}" != _fracnet ]] && _fracnet_before="${_comps[python]}"
    compdef _fracnet fracnet python python3
else
    _fracnet() {
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
fi
"""
NO_BASH_OR_ZSH = """if [[ -n "$ZSH_VERSION" ]]; then
    compdef -d fracnet python python3
    [[ -n "$_fracnet_before" ]] && compdef "$_fracnet_before" python python3
else
    complete -r fracnet python python3
    eval "$_FRACNET_BEFORE"
fi
unset -f _fracnet
"""
FISH = r"""function __fracnet
    set -l words (commandline -opc) (commandline -ct)
    set -l first 3
    string match -qr '(^|/)fracnet$' -- $words[1]; and set first 2
    if test $first = 3; and not string match -q -- '-m fracnet*' "$words[2..3]"
        return
    else if test (count $words) = $first
        test $first = 2; and string join \n @commands@
        test $first = 3; and string join \n fracnet.{@listed@}
        return
    end
    set -l rest $words[(math $first + 1)..-1]
    set -l choices (env COMP_LINE="fracnet $rest" $words[1..$first] -sc query=fish 2> /dev/null)
    string join \n $choices
    test -z "$choices"; and __fish_complete_path (commandline -ct)
end
complete -c fracnet -f -a '(__fracnet)'
for python in python python3
    complete -c $python -n 'functions -q __fracnet' -a '(__fracnet)'
    # The module is an argument of its option to fish.
    complete -c $python -s m -x -n 'functions -q __fracnet' -a '(__fracnet)'
end
"""
NO_FISH = """complete -e -c fracnet
functions -e __fracnet
"""
SCRIPTS = {
    "install=bash": BASH_OR_ZSH,
    "install=zsh": BASH_OR_ZSH,
    "install=fish": FISH,
    "uninstall=bash": NO_BASH_OR_ZSH,
    "uninstall=zsh": NO_BASH_OR_ZSH,
    "uninstall=fish": NO_FISH,
}


def completion_script(arguments: Sequence[str]) -> str | None:
    """What `-sc install=SHELL` and `-sc uninstall=SHELL` print; None for other arguments."""
    place = next((n for n, a in enumerate(arguments) if a in ("-sc", "--shell-completion")), None)
    script = None if place is None else SCRIPTS.get("".join(arguments[place + 1 : place + 2]))
    if script is None:
        return None
    folder = Path(__file__).parents[1]
    commands = sorted(p.stem for p in folder.glob("*.py") if p.stem not in NOT_COMMANDS)
    return script.replace("@commands@", " ".join(commands)).replace("@listed@", ",".join(commands))
