"""The words of the sandbox task: a service desk for shared office equipment.

Everything a request is about (verbs, items, days, counts) is the same wherever it is used; what is
said around it (openings, endings, asides, slips, questions that are none of the desk's business)
comes in two lists that share no phrase: `seen` for training and held-out combinations, `unseen`
for the test of wording the models never met.
"""

from __future__ import annotations

from dataclasses import dataclass

INTENTS = ("book", "cancel", "move", "order", "report")
"""What the desk does; everything else is `other`."""

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

VERBS: dict[str, tuple[str, ...]] = {
    "book": ("book", "reserve", "hold", "set aside", "arrange", "secure", "block", "save"),
    "cancel": (
        "cancel", "drop", "call off", "release", "give up", "scrap", "withdraw", "let go of",
    ),
    "move": ("move", "shift", "push", "reschedule", "postpone", "rebook", "transfer", "bump"),
    "order": (
        "order", "buy", "purchase", "procure", "get in", "send for", "acquire", "stock up on",
    ),
    "report": (
        "report", "log a fault with", "flag a problem with", "open a repair for",
        "report damage to", "raise a defect on", "log trouble with", "write up",
    ),
}  # fmt: skip

ITEMS: dict[str, tuple[str, ...]] = {
    "room": ("meeting room", "conference room", "boardroom"),
    "desk": ("desk", "workstation", "hot desk"),
    "car": ("car", "pool car", "vehicle"),
    "projector": ("projector", "beamer", "video projector"),
    "laptop": ("laptop", "notebook", "portable computer"),
    "parking": ("parking spot", "parking space", "parking place"),
    "camera": ("camera", "camcorder", "webcam"),
    "locker": ("locker", "storage box", "cabinet"),
    "monitor": ("monitor", "screen", "display"),
    "headset": ("headset", "earphone set", "pair of headphones"),
    "whiteboard": ("whiteboard", "flipchart", "drawing board"),
    "badge": ("badge", "access card", "key card"),
    "bike": ("bike", "bicycle", "e-bike"),
    "microphone": ("microphone", "mike", "clip-on mic"),
    "keyboard": ("keyboard", "typing board", "wireless keyboard"),
    "phone": ("phone", "handset", "mobile"),
}

PLURALS = {"pair of headphones": "pairs of headphones"}
"""Names whose plural is not made by an s."""

COUNTS: dict[str, int] = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "a couple of": 2, "half a dozen": 6,
    "a dozen": 12,
}  # fmt: skip

TICKET_WORDS = ("ticket", "reference", "ref", "number", "case", "#")


@dataclass(frozen=True)
class Wording:
    """What is said around a request; words in braces are places to be filled."""

    openings: tuple[str, ...]
    """Before the verb."""
    endings: tuple[str, ...]
    """After the request; empty: nothing."""
    asides: tuple[str, ...]
    """Clauses with days, items and numbers that are not the request's."""
    slips: tuple[str, ...]
    """Between a value said by mistake and the one meant."""
    outside: tuple[str, ...]
    """Out of scope: answered by `other`; `{thing}` is something the desk does not have."""
    things: tuple[str, ...]
    """What the desk does not have."""
    names: tuple[str, ...]


SEEN = Wording(
    openings=(
        "", "", "", "please", "can you", "could you please", "i want to", "i would like to",
        "we need to", "i need to", "we would like to", "hi, please", "hello, can you",
        "good morning, could you", "hey {name}, please", "dear team, i have to",
        "would you mind helping me to", "is it possible to", "kindly", "help me to",
        "i am trying to", "we want to", "let us", "i'd like to", "we'd love to",
        "my boss asked me to", "{name} told me to", "{name} wants to", "our team has to",
        "it is time to", "we must", "i forgot to ask you to", "quick one: please",
        "as discussed, please", "when you have a minute,", "for the workshop we have to",
        "for the new hire, please", "due to a change of plan, please",
        "since {name} is ill, please", "after the last meeting we decided to", "the plan is to",
        "would it be ok to", "are you able to", "any chance you could",
        "i was wondering if you could", "good afternoon, i wish to", "hi there, we intend to",
        "hello team, i need you to", "to save time, please", "once you can, please",
        "if nobody objects,", "on behalf of {name},", "this is {name}, please",
        "sorry to bother you, could you", "thanks for the help, now please", "next step:",
        "request:", "subject: service desk. please", "new task for you:", "todo:",
    ),
    endings=(
        "", "", "", "", "please", "thanks", "thank you", "thanks a lot", "many thanks", "cheers",
        "thank you very much", "as soon as you can", "if possible", "when you can", "if that is ok",
        "for me", "for us", "for {name}", "for my team", "for the sales team", "for a client visit",
        "because plans changed", "since we have guests", "as agreed with {name}", "regards, {name}",
        "best wishes", "and let me know", "and confirm by mail", "and tell {name}",
        "i will be there early", "that would be great", "it is for a training", "ok?", "right away",
        "in the usual way", "like last time", "same as before", "no rush", "it can wait a bit",
        "you know which one", "on the second floor", "in the north building", "near the entrance",
        "before lunch", "in the afternoon", "in the morning", "for the audit", "for a demo",
        "hope that works", "talk soon", "have a nice day", "{name} will sign it", "and cc {name}",
    ),
    asides=(
        "{name} is away on {day}", "the office is closed on {day}", "i am at home on {day}",
        "we met on {day}", "the {item} is fine", "i already have a {item}",
        "leave the {item} as it is", "there are {n} of us", "it took {n} days last time",
        "i have asked {n} times", "our visitors leave on {day}", "the {item} was repaired on {day}",
        "forget about the {item}", "we have {n} meetings that week", "{name} uses the {item}",
        "i called on {day}", "the invoice came on {day}", "it is not about the {item}",
        "last {day} was too busy", "{n} people told me so", "on {day} i am in a training",
        "the {items} are all taken", "{name} has the other {item}", "my shift ends on {day}",
    ),
    slips=(
        "no wait,", "sorry, i mean", "or rather", "no,", "correction:", "i meant", "actually",
        "make that", "wrong,", "oh no, better",
    ),
    outside=(
        "what is the capital of {thing}", "tell me a joke about {thing}", "how do i cook {thing}",
        "{thing} is great today", "hello", "good morning", "thanks, that is all", "who are you",
        "what does a {item} cost", "how many {items} do we have", "where is the {item}",
        "who used the {item} on {day}", "is the {item} free on {day}",
        "when does the office open on {day}", "which {item} is better", "do you like {thing}",
        "translate {thing} into french", "my {thing} hurts", "what is {n} plus {n}",
        "the {item} looks nice", "why is {thing} so slow", "write a poem about {thing}",
        "i lost my {thing} on {day}", "have you seen {name}", "sing me something about {thing}",
        "i think about {thing} a lot", "remind me what a {item} is", "did {name} call on {day}",
        "you did that well, {name}", "nothing for now",
    ),
    things=(
        "france", "the weather", "a train ticket", "a hotel", "a flight to rome", "pizza", "rice",
        "my gym membership", "a haircut", "the stock market", "football", "a dentist",
        "my insurance", "a concert", "shoes", "a table for dinner", "the garden", "a song",
        "my tax return", "a cat", "the newspaper", "a plumber", "medicine", "a horse",
        "the internet", "a holiday", "a loan", "the wedding", "flowers", "a house", "the bus",
        "my diet", "a visa", "cheese", "the elections", "a piano", "history", "a boat",
        "the museum", "my hair",
    ),
    names=(
        "anna", "ben", "carla", "david", "elena", "frank", "grace", "hugo", "irene", "jonas",
        "karin", "leo", "maria", "nina", "oscar", "paula", "robert", "sonja", "tom", "ursula",
    ),
)  # fmt: skip

UNSEEN = Wording(
    openings=(
        "be so good as to", "do me a favour and", "would somebody kindly",
        "management expects us to", "it'd be lovely if someone could", "shall we perhaps",
        "howdy, mind if you", "greetings from accounting, we ought to",
        "apologies for the short notice, you should", "per {name}'s instructions,",
        "my colleague {name} begs you to", "urgent matter:", "evening everyone, go ahead and",
        "i'm supposed to", "we've been told that we should", "whenever convenient,",
        "today's wish list:", "if it isn't too much trouble,", "following yesterday's phone call,",
        "not sure whether this is the right channel, yet", "action needed:",
        "hiya {name}, be a star and",
    ),
    endings=(
        "much obliged", "ta", "much appreciated", "at your earliest convenience",
        "sincerely {name}", "so that everybody is happy", "given the circumstances",
        "owing to the strike", "with the blessing of {name}", "while supplies last",
        "shout if anything is unclear", "and drop {name} a line", "it would make our lives easier",
        "until further notice", "for the upcoming trade fair", "ahead of the inspection",
        "upstairs next to the kitchen", "under the usual cost centre", "all the best from {name}",
        "looking forward to your answer",
    ),
    asides=(
        "{name} returns from vacation on {day}", "construction noise is expected on {day}",
        "somebody else borrowed the {item}", "ignore what i wrote concerning the {item}",
        "roughly {n} colleagues complained", "payday falls on {day}", "our {item} works perfectly",
        "{day} would clash with the fire drill", "there used to be {n} buildings here",
        "never mind the old {item}", "{name} mentioned {day} by mistake",
    ),
    slips=(
        "scratch that,", "hang on, it should be", "my mistake,", "pardon, of course",
        "or better yet",
    ),
    outside=(
        "could anyone explain {thing} to my kids", "recommend a film featuring {thing}",
        "does {name} speak spanish", "good night everybody", "what's your favourite {thing}",
        "how heavy is an average {item}", "whose {item} is that", "are {items} recyclable",
        "compose an essay concerning {thing}", "is {thing} open past nine", "lovely to meet you",
        "how tall is {name}", "the {item} reminds me of {thing}", "multiply {n} by {n}",
        "was {day} a public holiday", "please explain why the {item} is grey",
    ),
    things=(
        "brazil", "an opera", "soup", "my mortgage", "a kitten", "a taxi to the airport", "chess",
        "the moon", "a babysitter", "a cruise", "potatoes", "a bakery", "the olympics", "a tattoo",
        "my landlord", "a violin lesson", "a passport", "the aquarium", "a birthday cake",
        "volcanoes",
    ),
    names=(
        "amelia", "boris", "celine", "dmitri", "esther", "farid", "gunnar", "hanako", "imran",
        "jolanta",
    ),
)  # fmt: skip
