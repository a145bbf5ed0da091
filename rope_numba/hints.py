"""What a call with a wrong keyword, or with too many arguments, is told; and where a warning points."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Container, Iterable
from typing import Any, TypeVar, cast

from .numbers import shown

__all__ = ["called_as", "hinted", "public_names", "warn_caller"]

Function = TypeVar("Function", bound=Callable[..., Any])

# For each argument of this package, what other software calls it, in lower case and without underscores.
ELSEWHERE = {
    "alpha": "ntkalpha factor scale scalingfactor",
    "attention_factor": "attnfactor attentionscaling magnitude mscale yarnattnfactor",
    "axes": "ndim ndims rank ranks",
    "axis": "dim",
    "backend": "engine impl implementation jit device usenumba",
    "beta_fast": "betahigh highrotations yarnbetafast",
    "beta_slow": "betalow lowrotations yarnbetaslow",
    "config": "path file filename folder model modelpath modelid modelname pretrainedmodelnameorpath params hfconfig",
    "cos": "cosine cosines costable coscache freqscos",
    "cu_seqlens": "boundaries bounds cuseqlensq cuseqlen cuseqlens lengths seqlens seqlengths indptr starts",
    "delta": "by shift steps offset amount distance positions pos kshift n",
    "divisors": "freqfactors factors ropefactors ropefreqs",
    "dtypes": "dtype types storages",
    "factor": "scale scaling scalingfactor scalefactor ratio ropefactor freqscale",
    "frequencies": "invfreq freqs freqscis freq freqsforheads scaling ropescaling ropeparameters scale scalefactor "
    "scalingfactor freqscale freqfactors ropetype ropefreqs scheme yarn",
    "head_dim": "dim dims dhead headsize headwidth headdims sizeperhead hiddensize kvchannels features d embeddim",
    "inv_freq": "freqs freq frequencies speeds omega angles thetas",
    "k": "key keys xk kin kcache cache keystates x q",
    "layer_type": "layer layeridx layerindex attentiontype kind type",
    "layout": "interleaved isneox isneoxstyle neox neoxstyle traditional ropetraditional ropeinterleave "
    "ropeinterleaved rotaryinterleaved rotatehalf half style ropestyle rotarystyle mode ropemode pairing gptj pairs",
    "layouts": "layout",
    "max_position": "maxpositions maxpositionembeddings maxlen maxlength maxseqlen maxseqlength maxsequencelength "
    "maxcontext contextlength nctx npositions length seqlen",
    "model": "module net network",
    "offset": "start startpos startposition startindex pos position first begin past pastlen pastlength npast "
    "pastkeyvalueslength seqoffset seqlenoffset seqlenoffsets cachelen kvlen offsets inputpos cacheposition",
    "order": "format axes dataformat tensorformat qkvformat inputlayout batchfirst headfirst headsfirst seqfirst",
    "original_max_position_embeddings": "originalcontext originalcontextlength originalmaxposition origctx origctxlen "
    "nctxorig oldcontextlen trainedlength maxpositionembeddings originallength",
    "out": "output outputs outq outk dst dest destination into result inplace",
    "path": "file filename fname model modelpath config gguf ggufpath",
    "positions": "pos position positionid positionids positionsids posids inputpos inputpositions cacheposition "
    "cachepositions tokenpositions index indices idx t",
    "q": "query queries querystates xq qin x input tensor",
    "rotary_dim": "dim dims ndims headdim rotdim rotarywidth rotarydims rotaryndims ropedim ropedims nrot "
    "rotaryembeddingdim qkropeheaddim rotarypct rotarypercent ropepct partialrotaryfactor width fraction",
    "rotary_offset": "ropeoffset rotarystart startchannel channeloffset nopedim qknopeheaddim",
    "sections": "section mropesection mropesections axes",
    "seq_len": "seqlen length contextlength context ctx nctx maxlen maxlength maxseqlen maxseqlength n",
    "sin": "sine sines sintable sincache freqssin",
    "source": "layout src fromlayout sourcelayout layoutin layoutfrom interleaved",
    "streams": "stream axes axis sections",
    "strict": "lenient ignoreunknown force",
    "target": "dst to tolayout targetlayout layoutout layoutto",
    "theta": "base ropetheta ropebase ropefreqbase freqbase basefreq rotarybase rotaryembbase thetabase freqsbase "
    "maxwavelength wavelength maxperiod",
    "tokens": "ntokens numtokens seqlen length count n",
    "x": "w weight weights array tensor a qk q k",
}

# Flags that say a layout elsewhere, and which they mean if they are set.
FLAGS = {
    **dict.fromkeys(("interleaved", "traditional", "ropetraditional", "rotaryinterleaved", "gptj"), "interleaved"),
    **dict.fromkeys(("ropeinterleave", "ropeinterleaved"), "interleaved"),
    **dict.fromkeys(("isneox", "isneoxstyle", "neox", "neoxstyle", "rotatehalf", "half"), "half"),
}


def hinted(call: Function, also: tuple[str, ...] = ()) -> Function:
    """Return a function that says of a wrong keyword, or of too many arguments, what is probably meant.

    `also` are the keywords of a function that takes any. Not for calls that layers make: a second frame costs each call
    0.5 to 1 us (Python 3.11; a decode step took 1.2 us there).
    """
    code = call.__code__
    most = code.co_argcount
    accepted = code.co_varnames[: most + code.co_kwonlyargcount] + also
    implied = int(accepted[0] in ("self", "cls"))
    known = frozenset(accepted[implied:])

    @functools.wraps(call)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        try:
            return call(*arguments, **keywords)
        except TypeError:
            wrong = next((keyword for keyword in keywords if keyword not in known), None)
            if wrong is None and len(arguments) <= most:
                raise
        name = _name(call, arguments[:implied])
        if wrong is None:
            raise TypeError(_too_many(name, len(arguments) - implied, accepted[implied:most], accepted[most:]))
        raise TypeError(_unexpected(name, wrong, keywords[wrong], accepted[implied:]))

    return cast(Function, checked)


def called_as(form: str) -> Callable[[Function], Function]:
    """Let Python itself say how a function is called, where it refuses a keyword or an argument.

    Python begins that sentence with the function's qualified name, so that this costs a right call nothing. To take
    unknown keywords in a dict costs 0.09 us a call (Python 3.11, where a decode step took 2.0).
    """

    def named(call: Function) -> Function:
        call.__qualname__ = f"{form}: {call.__qualname__}"
        return call

    return named


def _unexpected(name: str, wrong: str, value: object, accepted: tuple[str, ...]) -> str:
    """Return what a call is told whose keyword it does not take."""
    from difflib import SequenceMatcher

    plain = wrong.lower().replace("_", "").replace("-", "")
    near = {one: SequenceMatcher(None, plain, one.replace("_", "")).ratio() for one in accepted}
    meant = (
        [one for one in accepted if near[one] == 1.0]
        or [one for one in accepted if near[one] > 0.85 or plain in ELSEWHERE.get(one, "").split()]
        or [one for one in accepted if near[one] > 0.7]
    )
    if "layout" in meant and plain in FLAGS and isinstance(value, int) and value in (0, 1):
        other = {"interleaved": "half", "half": "interleaved"}[FLAGS[plain]]
        meant = [f"layout={FLAGS[plain] if value else other!r}"]
    hint = f"did you mean {_either(meant)}?" if meant else f"expected {_either(accepted)}"
    return f"{name}() got an unexpected keyword argument {shown(wrong)}; {hint}"


def _name(call: Callable[..., Any], owner: tuple[Any, ...]) -> str:
    """Return what a caller writes before the brackets, for a method with the name of the class that it is called on."""
    if not owner:
        return call.__name__
    kind = owner[0] if isinstance(owner[0], type) else type(owner[0])
    return kind.__name__ if call.__name__ == "__init__" else f"{kind.__name__}.{call.__name__}"


def _too_many(name: str, given: int, positional: tuple[str, ...], by_name: tuple[str, ...]) -> str:
    """Return what a call is told that was given more arguments than have a place."""
    takes = f"only {_either(positional, 'and')}" if positional else "nothing"
    others = f"; expected {_either(f'{argument}=' for argument in by_name)} by name" if by_name else ""
    return f"{name}() takes {takes} by position, but {given} {'was' if given == 1 else 'were'} given{others}"


def _either(names: Iterable[str], joint: str = "or") -> str:
    *others, last = names
    return f"{', '.join(others)} {joint} {last}" if others else last


def public_names(x: object, but: Container[str] = ()) -> list[str]:
    """Return the attributes of an object that completion shows: those of the public interface."""
    return [name for name in object.__dir__(x) if not name.startswith("_") and name not in but]


def warn_caller(message: str) -> None:
    """Warn of something at the line of the caller that is outside this package."""
    package, depth = __name__.partition(".")[0], 2
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == package:
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, UserWarning, stacklevel=depth)
