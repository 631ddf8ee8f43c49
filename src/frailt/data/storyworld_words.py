"""What the story world is made of: names, things, places, plots and the lines that tell them.

All of it is data. A line is a template with two kinds of holes. ``[big|small|]`` is a free choice. ``{a}``
is a slot that the world fills: ``a``, ``b`` and ``c`` are characters in the order of the step's roles, ``o`` is
a thing, ``p`` a place, ``x`` the spot where ``o`` lies, ``y`` another spot in the same place. ``{S}`` and
``{s}`` are ``a`` as the subject, by name or, where nobody can be confused, by pronoun. ``_`` marks a word that
the story so far decides, so that a model can be asked for it.
"""

GIRLS = "Lily Mia Anna Sara Lucy Emma Zoe Ruby Nora Ella Ivy Amy Kate Molly Jane Eva Lena Maya"
BOYS = "Tom Tim Ben Max Sam Jack Leo Finn Noah Adam Dan Paul Oscar Henry Peter Billy Joe Owen"
SHE_ANIMALS = "Dot Bella Coco Fluff Tilly Penny Nina Hazel Lola Minnie Pearl Honey"
HE_ANIMALS = "Pip Hop Bruno Rusty Toby Momo Ollie Fuzzy Teddy Rocky Sunny Bubba"
PARENTS = {"Mom": "she", "Dad": "he", "Grandma": "she", "Grandpa": "he"}
ANIMALS = "rabbit fox bear mouse duck frog kitten puppy squirrel hedgehog owl turtle pig goat bird lamb"

# A toy, how one plays with it (now and in the past) and where its play goes.
TOYS = {
    "ball": ("roll", "rolled", "down the path"),
    "kite": ("fly", "flew", "high in the sky"),
    "doll": ("dress", "dressed", "like a queen"),
    "truck": ("push", "pushed", "through the sand"),
    "boat": ("sail", "sailed", "in a puddle"),
    "drum": ("beat", "beat", "like a big band"),
    "book": ("read", "read", "in the shade"),
    "hat": ("wear", "wore", "like a king"),
    "scarf": ("wave", "waved", "like a flag"),
    "bell": ("ring", "rang", "again and again"),
    "balloon": ("bounce", "bounced", "up and down"),
    "robot": ("march", "marched", "over the stones"),
    "train": ("drive", "drove", "around a rock"),
    "bucket": ("fill", "filled", "with sand"),
    "wagon": ("pull", "pulled", "over the grass"),
    "flute": ("play", "played", "like a bird"),
    "puppet": ("move", "moved", "like a dancer"),
    "hoop": ("spin", "spun", "round and round"),
}
COLOURS = "red blue green yellow orange pink purple white black golden striped shiny"
FOODS = "apple pear cookie carrot cake muffin plum banana sandwich pie peach bun"
TASTES = "big fresh tasty yummy nice lovely"
MATERIALS = "rope board box ladder pole plank"
WEAR = "long strong old heavy brown gray"
FINDS = "small pretty tiny smooth perfect beautiful"

# The place, the word before it, what one finds there, and its spots.
PLACES = {
    "park": ("at", "leaf feather stick", "under bench|behind tree|beside fountain"),
    "pond": ("at", "shell stone feather", "behind log|under willow|beside boat house"),
    "forest": ("in", "acorn leaf pinecone", "under fern|behind oak|inside hollow stump"),
    "garden": ("in", "flower leaf stone", "behind gate|under rose bush|beside watering can"),
    "beach": ("at", "shell stone stick", "behind rock|under umbrella|beside sand castle"),
    "hill": ("on", "flower feather stone", "under pine tree|behind boulder|beside signpost"),
    "river": ("at", "stone shell stick", "under bridge|behind reed bed|beside mill"),
    "farm": ("at", "feather flower acorn", "behind tractor|under cart|inside hen house"),
    "meadow": ("in", "flower leaf feather", "behind fence|under thistle|beside haystack"),
    "playground": ("at", "leaf stick stone", "under slide|behind swing|beside seesaw"),
    "market": ("at", "flower acorn feather", "under table|behind barrel|beside fruit stand"),
    "cave": ("at", "stone stick pinecone", "behind pillar|under ledge|beside puddle"),
}
PATHS = (
    "park pond|park playground|park garden|garden meadow|pond forest|forest hill|forest cave|hill meadow|"
    "meadow river|river beach|river farm|farm market|market playground"
)
"""The pairs of places that lie side by side."""

DETAILS = {
    "park": (
        "[Many|Some] [children|birds|dogs] were [playing|running around] in the park.",
        "The [grass|path] in the park was [soft and green|still wet|warm in the sun].",
    ),
    "pond": (
        "[Two|Three|Five] [ducks|frogs|swans] were swimming in the pond.",
        "The water of the pond was [calm|clear|cool] and [bright|green|deep].",
    ),
    "forest": (
        "The [tall|old|dark] trees in the forest [moved in the wind|made cool shade|were very quiet].",
        "It smelled of [moss|rain|mushrooms] in the forest.",
    ),
    "garden": (
        "[Bees|Butterflies] were [dancing|flying] around the [roses|beans|sunflowers].",
        "The garden was full of [ripe tomatoes|sweet peas|bright flowers].",
    ),
    "beach": (
        "The [waves|sea] [sang a soft song|rolled over the sand].",
        "The sand [was warm|was soft|felt hot] and the sea was [blue|calm|loud].",
    ),
    "hill": (
        "From the hill, one could see [the whole village|far away|the tops of the trees].",
        "It was [windy|quiet|sunny] on the hill.",
    ),
    "river": (
        "The river was [fast|loud|wide] and [cold|full of little fish].",
        "[Little|Silver] fish jumped [out of|in] the river.",
    ),
    "farm": (
        "The [cows|sheep|hens] at the farm were [eating|resting|making a lot of noise].",
        "A [kind|tired|busy] farmer waved from [his tractor|the barn door].",
    ),
    "meadow": (
        "The grass in the meadow was [high|soft|yellow], and [bees|crickets] sang in it.",
        "[White|Tiny] clouds moved over the meadow.",
    ),
    "playground": (
        "[Nobody|A baby|A big boy] was on the [slide|swing].",
        "The playground was [noisy|full of children|almost empty].",
    ),
    "market": (
        "The market smelled of [bread|cheese|fresh fruit].",
        "People were [buying|selling] [fish|eggs|honey] at the market.",
    ),
    "cave": (
        "The cave was [dark|cold] and [deep|damp|very quiet].",
        "[Drops of water|Tiny bats] made [funny|strange] noises in the cave.",
    ),
}

TRAITS = {
    "brave": "{a.He} was not afraid of [the dark|loud noises|high trees|thunder].",
    "curious": '{a.He} always asked, ["Why?"|"What is that?"|"How does it work?"]',
    "kind": "{a.He} liked to [help others|make people smile|share with friends].",
    "shy": "{a.He} did not [talk much|like big crowds], but {a.he} had a [warm|big] heart.",
    "silly": "{a.He} [told funny jokes|made funny faces|sang silly songs] all day.",
    "clever": "{a.He} [could count to a hundred|had a new idea every day|knew many riddles].",
    "busy": "{a.He} never [sat still|wanted to take a nap].",
    "gentle": "{a.He} [spoke softly|never stepped on a bug|was good to everyone].",
    "proud": "{a.He} [liked to win every game|wanted to be the best at everything].",
    "dreamy": "{a.He} could [look at the clouds|watch the stars] for hours.",
}

# What can be learned, how it goes wrong at first, and where.
SKILLS = {
    "swim": ("went under", "pond river beach"),
    "dance": ("fell over", "park meadow playground market"),
    "climb": ("slid down", "forest garden hill park"),
    "whistle": ("made no sound", "hill meadow farm"),
    "skate": ("fell down", "park playground market"),
    "jump": ("landed in the mud", "meadow farm river"),
    "paint": ("made a big mess", "garden hill beach"),
    "juggle": ("dropped everything", "market playground forest"),
}
PERCHES = ("in a high tree", "on a roof", "behind a big rock", "in a bush", "on top of a wall")
BUILDS = ("swing", "raft", "tent", "tree house", "bridge", "castle", "cart", "stage")

OPENINGS = (
    "open a h; [trait a; ||]has a o; [love a o; ||]; /; ",
    "has a o; [love a o; ||]born a h; [trait a; ||]; /; ",
    "open a h; has a o; /; ",
    "born a h; [trait a; |]has a o; /; ",
    "scene a; born a h; has a o; /; ",
)
TIME = "time a; promise a m g; "
HOMEWARD = "; /; pick a g p; return a h; keep a m g; [supper a m; ||]"

# A plot is a script. A step is a verb and its roles: a the hero, b the friend, c a third, m a parent; o and u
# toys, f food, t a tool, g a thing promised to m, k a toy that b happens to have; p and q places, h home. Two
# characters together are written as one word. "/" begins a paragraph. g and k are in some stories only, and a
# step whose role is not in the story is left out. Beside each script stands the key of its moral.
PLOTS = {
    "lost": (
        "TIME walk a p; [detail p; ||]play a o; put a o p; walk a q; meet a b q; has b k; chat b a; /; "
        "miss a o; sad a; comfort b a; [recall a p; |]walk ab p; [OBSTACLE ab; |]look ab o p; "
        "[find a o p|find b o p; give b a o]; glad a; thank a b; [lend a b o; play b o; turn b a o; |]",
        "care",
    ),
    "share": (
        "TIME walk a p; [detail p; ||]meet a b p; has b k; play a o; want b a o; refuse a b o; sulk b; /; "
        "[advise a m; |think a b; ]sorry a b; lend a b o; play b o; [turn b a o; |]fun ab; [glad ab|happy a]",
        "share",
    ),
    "help": (
        "TIME walk a p; [detail p; ||]hear a b p; stuck b u p; cry b; offer a b; try a u; [idea a b; "
        "|OBSTACLE ab; |]"
        "reach a u; give a b u; glad b; thank b a; fun ab",
        "help",
    ),
    "hungry": (
        "TIME walk a p; [detail p; ||]hungry a; meet a b p; treat b f; ask_food a b f; /; "
        "[swap_ask b a o; trade a b o; give b a f; eat a f|kind_food b a f; eat ab f; lend a b o; play b o]; "
        "thank a b; glad ab",
        "food",
    ),
    "errand": (
        "TIME send m a f q; walk a q; [detail q; ||]get a f q; [OBSTACLE a; |]walk a p; meet a b p; "
        "has b k; starving b; "
        "doubt_food a f; give a b f; eat b f; thank b a; /; pick a g p; return a h; truth a m b f; "
        "proud m a; keep a m g",
        "kind",
    ),
    "build": (
        "friend a b; has b k; /; TIME walk ab p; [detail p; ||]plan a b; need_tool b t; walk ab q; "
        "look_tool ab t q; "
        "get b t q; [OBSTACLE ab; |]walk ab p; build ab t; [fail ab; |]done ab; glad ab",
        "work",
    ),
    "trip": (
        "friend a b; has b k; /; TIME wish b p; pack a f; warn m a; walk ab p; OBSTACLE ab; [detail p; ||]"
        "rest ab; eat ab f; play a o; [lend a b o; play b o; |]glad ab",
        "friends",
    ),
    "break": (
        "friend a b; /; TIME walk ab p; [detail p; ||]has b u; want a b u; lend b a u; break a u; cry b; /; "
        "[hide a b; |]think a b; sorry a b; [mend ab u; give a b u|make_up a b o]; forgive b a; fun "
        "ab; [happy a|glad ab]",
        "truth",
    ),
    "gift": (
        "friend a b; has b k; birthday b; /; TIME gift_idea a b; walk a q; [detail q; ||]get a u q; "
        "[OBSTACLE a; |]walk a p; "
        "hide_gift a u p; meet a b p; ask_secret b a; surprise a b; look b u p; find b u p; own a b "
        "u; glad b; thank b a",
        "gift",
    ),
    "learn": (
        "friend a b; has b k; can b a; /; TIME walk ab p; teach b a; fail_skill a; laugh a b; again a b; "
        "[OBSTACLE ab; |]succeed a; proud b a; happy a; prize b a k",
        "practice",
    ),
    "borrow": (
        "friend a b; /; TIME walk ab p; has b u; ask_lend a b u; lend b a u; vow a b u; walk a q; "
        "[detail q; ||]play a u; "
        "meet a c q; tempt c a u; no_trade a c b; /; [OBSTACLE a; |]walk a p; bring a b u; proud b "
        "a; glad ab",
        "promise",
    ),
    "swap": (
        "TIME walk a p; [detail p; ||]meet a b p; has b u; want b a o; agree a b u; trade a b o; "
        "trade b a u; play a u; "
        "play b o; [regret a o; talk ab; trade b a o; trade a b u; glad ab|glad ab; fun ab]",
        "fair",
    ),
    "guide": (
        "TIME walk a p; [detail p; ||]meet a c p; cry c; lost_way c q; comfort a c; walk ac q; "
        "[OBSTACLE ac; |]arrive c a q; glad c; thank c a; [reward c a u; |]",
        "help",
    ),
    "honest": (
        "TIME walk a p; [detail p; ||]find_new a u p; walk a q; meet a b q; has b k; seek b u p; doubt a u; "
        "give_back a b u; glad b; thank b a; [lend b a u; play a u; turn a b u; |]fun ab",
        "honest",
    ),
}
OBSTACLES = ("rain", "wind", "mud", "dog", "dark", "bee", "thorn", "noise")

FEELINGS = {
    "sad": "sad cry sulk regret hide",
    "scared": "dog dark noise",
    "happy": "glad happy forgive thank fun",
    "proud": "proud succeed",
    "hungry": "hungry starving",
    "sorry": "sorry",
}
"""A feeling, and the steps that make their first character feel it."""

LINES = {
    "open": (
        "[Once upon a time|Once|Long ago], there [was|lived] {a.intro} [near|not far from] the {n}.",
        "[Once upon a time, |A long time ago, |One day, ]{a.intro} [lived|was living] in a "
        "[small|big|cozy|tiny] house near the {n}.",
        "In a [small|cozy|yellow|round] house near the {n} lived {a.intro}.",
        "{a} was a [little|young|small] {a.kind} who lived [near|close to] the {n}.",
        "There [once was|was once] {a.intro} who [loved to play|played every day] near the {n}.",
    ),
    "born": (
        "{S} was a [little|young|small] {a.kind} [from a house near|who lived near|who played every day near] the {n}.",
        "{S} was a [happy|little|good] {a.kind} and lived with {a.his} [family|mom and dad|big family] near the {n}.",
    ),
    "scene": (
        "It was a [warm|windy|quiet|bright] [day|morning] in [spring|summer|autumn], and {a} was "
        "[dreaming|singing|playing] [in the sun|at the window|by the door].",
        '"[Hello|Good day], [world|sun|sky]!" [called|shouted|sang] {a}.',
        "{a} [opened the window|opened {a.his} eyes|looked up at the sky] and [smiled|laughed|sang a song].",
    ),
    "has": (
        "{S} had {o.a}.",
        "{S} had {o.a} [in {a.his} bag|that was very special|from Grandma|from a shop].",
        "{S} [always|often] [carried|had] {o.a} [under {a.his} arm|with {a.him}].",
    ),
    "love": (
        "{S} loved to {o.play} the {o.noun} {o.where}.",
        "It was {a.his} [favorite toy|best toy|most special thing].",
        "The {o.noun} was [old but good|as bright as the sun|a gift from Grandma|always close to {a.him}].",
    ),
    "time": (
        "It was a [sunny|cool|lovely|cloudy|fresh] [morning|day|afternoon].",
        "One [sunny|warm|windy|bright|quiet] [morning|day], {a} [got up early|ate {a.his} breakfast "
        "quickly|could not wait to go out].",
        "One day, the [birds sang|sun was shining|sky was blue] and {a} wanted to [play outside|have "
        "an adventure|see something new].",
        "On [Monday|Sunday|Friday] morning, {a} [jumped out of bed|washed {a.his} face|put on {a.his} shoes].",
    ),
    "promise": (
        '"[Will|Can] you bring me {o.a}?" asked {b}. "[Yes, I promise|I promise|I will not forget]," said {a}.',
        '{S} made a promise to {b}. "I will bring you {o.a}," {a.he} said.',
        'Before {a.he} left, {a} said, "I will bring you {o.a}, {b}. [I promise|That is a promise]!"',
    ),
    "walk": (
        "{S} [went|ran|walked] [|happily |slowly |quickly ]to {p}.",
        "[Soon|Then|Before long], {s} [went|walked|ran] to {p}.",
        "{S} [sang all the way|took the long road|followed the path] to {p}.",
    ),
    "walk past": (
        "{S} [walked|went|ran] past {via} and came to {p}.",
        "[Soon|Then], {s} [walked|went|ran] past {via} to {p}.",
    ),
    "return": (
        "[Then|At last|In the evening], it was time to go, and {a} [went|walked|ran] home.",
        "[When the sun went down|When it got late|When the stars came out], {a} [went|walked|ran] home.",
        "{S} [said goodbye and|waved goodbye and|was tired and] [went|walked] home.",
    ),
    "meet": (
        "There {s} [met|saw] {b.intro}.",
        "{S} [met|saw] {b.intro} {p.at}.",
        '{S} [met|saw] {b.intro}. "Hello, I am {b}," said the {b.kind}.',
        '{b.Intro} was there, too. "[Hi|Hello], {b}!" [said|called] {a}.',
    ),
    "meet again": (
        "[There|Soon] {s} [met|saw] {b}.",
        '{b} was there. "[Hi|Hello], {b}!" [said|called] {a}.',
        "{b} [came|ran] up to {a}.",
    ),
    "friend": (
        "{S} had a [good|best|dear] friend. [It was|This was] {b.intro}.",
        "{a} and {b.intro} were [best|good|old] friends.",
        "{a.His} [best|dear] friend was {b.intro}.",
    ),
    "chat": (
        '"[Come and play with me|Let us run together|Let us sing a song]," said {a}.',
        "{a} and {b} [talked and laughed|played a game|ran around|sang a song] for [a while|a long time].",
    ),
    "play": (
        "{S} {o.played} the {o} {o.where}.",
        "{S} {o.played} the [{o.noun}|{o}] {o.where} [and laughed|until {a.he} {a.was} tired|for a long time].",
        "It was [fun|great fun] to {o.play} the {o.noun} {o.where}.",
    ),
    "put": (
        "{S} put the [{o.noun}|{o}] {x.a}[ and forgot it|].",
        "{S} [left|laid] the [{o.noun}|{o}] {x.a}.",
    ),
    "hide_gift": (
        "{S} hid the [{o.noun}|{o}] {x.a}.",
        "{S} put the [{o.noun}|{o}] {x.a}, where nobody could see it.",
    ),
    "miss": (
        '[Suddenly|Then], {s} stopped. "Oh no! Where is my {o}?"',
        "{S} looked in {a.his} bag. The {o} was [not there|gone]!",
        '"My {o} is [gone|lost]!" [cried|said] {a}.',
    ),
    "sad": (
        "{S} {a.was} [very|so] sad[ and began to cry|].",
        "A [big|small] tear ran down {a.his} [cheek|nose].",
    ),
    "comfort": (
        '"[Do not cry|Do not be sad|Do not worry], {b}," said {a}. "I will [help you|stay with you|go with you]."',
        '{a} [hugged|held] {b}. "[We can do it|We will find a way] together," {a.he} said.',
    ),
    "recall": (
        '{S} thought hard. "I [had it|was playing with it] {p.at}!"',
        '"I know! I [must have left it|was playing] {p.at}," said {a}.',
    ),
    "look": (
        "{S} looked {y}, but [nothing was there|there was only an old shoe|there was only a snail|there "
        "was only a wet leaf].",
        "{S} looked {y}. [No luck|No, it was not there|Nothing].",
        "First, {s} looked {y}. [It was not there|There was only an ant|There was no {o.noun}].",
    ),
    "find": (
        "Then {s} looked {x}, and there was the {o}!",
        '"[Look|Here|Hurray]!" [cried|called|shouted] {a}. The {o} was {x.prep} the _{x.noun}.',
        "{S} found the {o} {x}.",
    ),
    "thank": (
        '"Thank you, {b}," [{a} said|said {a}].',
        '"[You are a good friend|You are so kind|That was nice of you], {b}," said {a}.',
        "{S} [hugged|thanked] {b} [with a big smile|again and again].",
    ),
    "glad": (
        "{S} {a.was} [very|so] [happy|glad].",
        "{S} [jumped for joy|smiled from ear to ear|clapped and laughed|danced with joy].",
    ),
    "happy": (
        "{S} felt [warm inside|happy again|light as a feather].",
        "{S} {a.was} [happy|glad] [again|at last].",
    ),
    "want": (
        '"[What a nice|I like your|I love that] {o}! [Can I have a turn|May I try it|May I hold it]?" asked {a}.',
        '{S} [pointed at|looked at] the {o}. "[May I|Can I] {o.play} it[|, please]?" {a.he} asked.',
    ),
    "refuse": (
        '"No! [It is mine|The {o.noun} is mine|You will break it]," said {a}.',
        '{S} [held the {o.noun} tight|hid the {o.noun}] and said, "No, {b}!"',
    ),
    "sulk": (
        "{S} [sat down|turned around|walked away] and [said nothing|looked at the ground|did not smile].",
        "{S} felt [sad|hurt|angry] and [sat alone|began to cry].",
    ),
    "advise": (
        'Then {a} remembered what {b} always said: "[A toy is more fun with a friend|Good friends '
        'take turns|Be kind to others]."',
    ),
    "think": (
        "{S} [looked at|watched] {b} and [thought for a while|felt bad|thought hard].",
        "{S} [wanted to do the right thing|did not want {b} to be sad|saw how {b} felt].",
    ),
    "sorry": (
        '"I am [so |very |]sorry, {b}," said {a}.',
        '{S} took a deep breath. "I am sorry, {b}. [Please do not be sad.|It was my fault.|Will you forgive me?]"',
    ),
    "lend": (
        '{S} [gave|handed] {b} the {o}. "[You can play with it|It is your turn|Be careful with it]," {a.he} said.',
        '"[Here|Look|Come], you can {o.play} my {o}," said {a} and gave it to {b}.',
        "{S} let {b} [hold|have|take] the {o}.",
    ),
    "give": (
        "{S} [gave|handed] the {o} to {b}.",
        "{S} gave {b} the {o}[ with a smile|].",
        '"[This is for you|Here is the {o.noun}|Take it], {b}," said {a} and gave {b.him} the {o}.',
    ),
    "turn": (
        "[After a while|Later|Then], {a} gave the {o.noun} back to {b}.",
        '"[Now it is your turn|Here you are|You can have it back], {b}," said {a} and gave back the {o}.',
    ),
    "fun": (
        "{S} [played|laughed|ran around] together [all day|until the sun went down|for a long time].",
        "{S} had [a lot of|so much] fun.",
    ),
    "hear": (
        "{S} heard [a voice|someone crying|a cry for help]. It was {b.intro}.",
        '"[Help|Oh no]!" [called|cried] someone. {a} ran and saw {b.intro}.',
    ),
    "stuck": (
        "{a.His} {o} was stuck {z}.",
        "The wind had blown {a.his} {o} away, and now it was stuck {z}.",
    ),
    "cry": (
        "{S} was crying[ softly| and could not stop|].",
        "Big tears ran down {a.his} [face|cheeks].",
        "{S} looked [so sad|very sad] and cried.",
    ),
    "offer": (
        '"[Do not cry|Wait|Do not worry], I [will|can] help you, {b}," said {a}.',
        '"[Let me try|I will get it for you]," said {a}.',
    ),
    "try": (
        "{S} [jumped|reached up|pulled] [once, twice, three times|again and again|with all {a.his} "
        "might], but it did not work.",
        "{S} [tried and tried|tried hard], but {a.he} {a.was} too [small|short|weak].",
    ),
    "idea": (
        '"I have an idea!" said {a}. "[Stand on my back|Let us use a long stick|Hold my hand], {b}."',
        "{S} asked {b} to [hold {a.him} tight|count to three|push from below].",
    ),
    "reach": (
        "[At last|Then|Snap], {s} [reached|got|had] the {o}!",
        "{S} [stretched|gave one big pull|took one big jump] and got the {o}.",
    ),
    "hungry": (
        "{S} was [so|very] hungry. {a.His} tummy [made a funny noise|growled|hurt].",
        '"I am so hungry," [said|thought] {a}.',
    ),
    "starving": (
        '"I have had nothing to eat [all day|since yesterday]," said {a}.',
        '{S} looked [tired|pale|weak] and {a.his} tummy growled. "I am so hungry," {a.he} said.',
    ),
    "treat": (
        "{S} had {o.a}. It [smelled|looked] so good!",
        "{S} was just taking {o.a} out of a [bag|box].",
    ),
    "ask_food": (
        '"[May I|Can I] have [some of your|a bite of your|a piece of the] {o.noun}?" asked {a}.',
        '{S} asked, "Will you share your {o.noun} with me, {b}?"',
    ),
    "swap_ask": (
        '"[Only if you give me|Give me|You can have it for] your {o}," said {a}.',
        '{S} [looked at the {o}|thought for a while]. "I will trade it for your {o}," {a.he} said.',
    ),
    "trade": (
        "{S} gave {b} the {o}.",
        "{S} [nodded|smiled] and handed {b} the {o}.",
        "So {s} [handed|gave] the {o} to {b}.",
    ),
    "kind_food": (
        '"[Of course|Yes], there is enough for two," said {a}.',
        '"[Sit down|Come here], {b}. [Let us eat it together|We can share it]," said {a}.',
    ),
    "eat": (
        "{S} ate the {o.noun}. It [was so good|tasted sweet|tasted wonderful].",
        "{S} ate all of the {o}. [Yum|How good it was]!",
    ),
    "send": (
        '"We need {o.a}. [Can|Will] you get one from {p}?" asked {a}. "[Yes|Of course]!" said {b}.',
        '"Please get {o.a} from {p}, {b}," said {a}. {b} [nodded|took a bag].',
    ),
    "get": (
        "There {s} [got|found|picked out] {o.a}.",
        "{S} [found|got] {o.a} and put it in {a.his} bag.",
        '"[This one is just right|Here it is|That is the one]!" said {a} and took {o.a}.',
    ),
    "doubt": (
        "{S} looked at the {o} [for a long time|and held it tight]. {a.He} wanted to keep it. But "
        "that [was not right|would be wrong].",
        '"[I could keep it|Nobody would know]," thought {a}. But it did not feel right.',
    ),
    "doubt_food": (
        "{S} looked at the {o}. [What would they say at home?|It was not for {a.him} to give away.] "
        "But {a.he} could not just walk away.",
        '"[But I need it at home|I should take it home]," thought {a}. Then {a.he} thought again.',
    ),
    "truth": (
        '"I [do not have|gave away] the {o}," said {a}. "{c} was so hungry."',
        '"Where is the {o}?" asked {b}. {a} told {b.him} [all about|about] {c}.',
    ),
    "proud": (
        '"I am [so |very |]proud of you, {b}," said {a}.',
        '{S} smiled at {b}. "[You did well|You have a big heart|Well done]!"',
    ),
    "plan": (
        '"Let us build a {thing}!" said {a}. "[Great idea|Yes, let us]!" said {b}.',
        "{S} wanted to build a {thing} with {b}.",
    ),
    "need_tool": (
        '"[First, we need|But we need|We have no {o.noun}. We need] {o.a}," said {a}.',
        '"[We cannot do it|It will not work] without {o.a}," said {a}.',
    ),
    "look_tool": (
        "{S} looked for a {o.noun} [everywhere|for a long time].",
        "{S} looked {y}, but there was no {o.noun}.",
    ),
    "build": (
        "{S} [worked|built] all [day|morning] with the {o}.",
        "{S} used the {o} to make the {thing} [strong|big|tall].",
    ),
    "fail": (
        "[Crash|Bang|Oh no]! The {thing} fell down. [So they started|They laughed and started] again.",
        "The first {thing} [broke|fell over], but {s} did not give up.",
    ),
    "done": (
        "[At last|In the end], the {thing} was [done|ready|finished].",
        'What a [fine|great|beautiful] {thing} it was! "We did it!" {s} [shouted|called].',
    ),
    "wish": (
        '"I have never been to {p}," said {a}. "[Let us go there!|Can we go there?]"',
        "{S} wanted to [see|go to] {p} [more than anything|very much].",
    ),
    "pack": (
        "{S} packed {o.a} [in a bag|for the trip|for later].",
        "{S} took {o.a} along.",
    ),
    "warn": (
        '"[Be careful|Come home before dark|Stay together]," said {a}. "[Yes, I will|I will be good]," said {b}.',
        '{S} [kissed|hugged] {b} and said, "[Be careful|Have fun|Take care of your friend]!"',
    ),
    "rest": (
        "{S} [sat down|rested] [in the grass|on a big stone|under a tree]. {a.His} legs were tired.",
        "At last, {s} could rest. What a [long|hard] trip!",
    ),
    "break": (
        "[Crack|Oh no]! The {o} fell and got a big hole.",
        "{S} [was not careful|tripped and fell|dropped it], and the {o} got a big hole.",
    ),
    "hide": (
        '"[It was the wind|I did not do it]," said {a}. But it was not true[ and {a} felt bad|].',
        "{S} wanted to [run away|hide]. {a.His} heart [beat fast|was heavy].",
    ),
    "mend": ("{S} [fixed|mended] the {o} with [glue|tape|string]. It was [almost new|as good as new].",),
    "make_up": (
        '"You can have my {o} now," said {a} and gave it to {b}.',
        "{S} gave {b} the {o} to make it right.",
    ),
    "forgive": (
        '"[That is all right|I am not angry|Thank you for telling the truth|I forgive you], {b}," said {a}.',
        "{S} [smiled|hugged {b}] and was not [angry|sad] [any more|anymore].",
    ),
    "birthday": (
        "[Today was|It was] {a}'s birthday.",
        "{a}'s birthday [had come|was here].",
    ),
    "gift_idea": (
        '"I want to [give {b} something special|find a gift for {b}]," said {a}.',
        "{S} wanted to [surprise|make a surprise for] {b}.",
    ),
    "ask_secret": (
        '"What [did you do|are you doing] today, {b}?" asked {a}. "[Nothing|That is a secret]!" said {b}.',
        '{a} asked, "Why are you [smiling|laughing], {b}?" But {b} did not tell.',
    ),
    "surprise": (
        '"[Happy birthday|Surprise], {b}! [Look around!|There is something for you,|Can you find '
        'your gift?]" said {a}.',
    ),
    "own": (
        '"This [{o.noun}|{o}] is for you," said {a}. "It is [yours|your own] now, {b}."',
        'It was a gift from {a}. "It is [yours|all yours], {b}!"',
    ),
    "can": (
        "{S} could {skill} [very well|like nobody else|better than anyone]. But {b} could not {skill} at all.",
        '{S} loved to {skill}. "I want to {skill}, too," said {b}.',
    ),
    "teach": (
        '"[Watch me|Look], {b}. [It is not hard|You can do it|Just like this]," said {a}.',
        "{S} showed {b} how to {skill}. It looked so easy!",
    ),
    "fail_skill": (
        "{S} tried, but {a.he} {failed}.",
        "{S} tried to {skill} and {failed}.",
    ),
    "laugh": (
        '{S} [laughed|got red|felt silly|wanted to stop]. "[I will never learn it|This is too hard]!"',
        '"[It is too hard|I cannot do it], {b}," said {a}.',
    ),
    "again": (
        '"[Try again|Do not give up|One more time]," said {b}. So {a} tried again[ and again|].',
        "{S} tried [two|three|five|ten] more times. {b} [helped|clapped|counted].",
    ),
    "succeed": (
        "[And then it worked|At last it worked|Suddenly it was easy]! {a} could {skill}.",
        '"[Look at me|I can do it]!" shouted {a}. {a.He} could {skill}.',
    ),
    "prize": (
        '"This is your prize," said {a} and gave {b} the {o}.',
        "{S} gave the {o} to {b} as a prize.",
    ),
    "ask_lend": (
        '"[May I|Can I] [take|borrow] your {o}?" asked {a}.',
        "{S} wanted to borrow the {o}.",
    ),
    "vow": (
        '"I will bring it back [before dark|today|soon]," said {a}. "[I promise|You can trust me], {b}."',
        "{S} promised {b} that {a.he} would bring the {o.noun} back.",
    ),
    "tempt": (
        '"[Give me|I want|Let me have] that {o}," said {a}. "[You can have all my candy for '
        'it|Nobody will know|Please, please]!"',
    ),
    "no_trade": ('"No, {b}. [It is not mine|I made a promise to {c}|I have to bring it back to {c}]," said {a}.',),
    "bring": (
        '"Here is your {o}, {b}. I [kept|did not forget] my promise," said {a}.',
        "{S} [kept {a.his} promise and |]gave the {o} back to {b}.",
    ),
    "agree": (
        '"[You can have it|Yes], if I get your {o}," said {a}. {b} [nodded|agreed|laughed].',
        '{S} looked at the {o}. "Let us trade, {b}!"',
    ),
    "regret": (
        "But soon {s} missed the {o}.",
        '"I miss my {o}," [said|thought] {a}[ sadly|].',
    ),
    "talk": (
        '"[Can|Shall] we trade back?" {s} asked each other. "[Yes|Of course]!"',
        "{S} talked about it and [agreed|wanted] to trade back.",
    ),
    "lost_way": (
        '"I [live near|come from] {p}, but I cannot find the way," said {a}.',
        '"I am lost! My home is near {p}," said {a}.',
    ),
    "arrive": (
        '"[That is my house|There is my mom|I am home]!" [cried|shouted] {a}. {b} had brought '
        "{a.him} to the _{p.noun}.",
    ),
    "reward": (
        '"This {o} is for you," said {a} and gave it to {b}.',
        '{S} ran inside and came back with {o.a}. "[Take it|Keep it], {b}!"',
    ),
    "find_new": (
        "{S} [found|saw and picked up] {o.a}. Nobody was there.",
        '"What is this?" said {a}. {a.He} picked up {o.a}.',
    ),
    "seek": (
        '"I lost my {o} {p.at}," said {a}. "Have you seen it?"',
        '{S} was looking for something. "Have you seen my {o}?" {a.he} asked.',
    ),
    "give_back": (
        '"[I found it|Here is your {o.noun}], {b}. It is yours," said {a} and gave {b.him} the {o}.',
        "{S} gave the {o} to {b}.",
    ),
    "pick": (
        "On the way, {s} [found|picked up|saw and took] {o.a}.",
        "{S} did not forget {a.his} promise. {a.He} found {o.a} and [took it along|put it in {a.his} pocket].",
    ),
    "keep": (
        "{S} kept {a.his} promise and gave {b} the {o.look} _{o.noun}.",
        '"[I kept my promise|I did not forget], {b}," said {a} and gave {b.him} the {o.look} _{o.noun}.',
        "{b} [was waiting|stood] at the door. {a} kept {a.his} promise and gave {b.him} the _{o.look} {o.noun}.",
    ),
    "supper": (
        "{b} made [soup|pancakes|hot milk] for {a}, and {a.he} told {b.him} everything.",
        "{S} told {b} [all about the day|everything|the whole story].",
    ),
    "rain": (
        "[Suddenly|But then], it began to rain. {S} [hid|sat] under [a big leaf|a roof] until [the "
        "sun came out|it stopped].",
    ),
    "wind": ("A [strong|cold] wind [came up|blew]. {S} had to [hold on to a tree|walk very slowly|sit down].",),
    "mud": (
        "{S} slipped in the mud. [What a mess|Splash|Everything was dirty]! But {s} [got up|laughed] and went on.",
    ),
    "dog": ("A big dog [barked|ran up]. {S} {a.was} [scared|afraid], but the dog only wanted to [play|say hello].",),
    "dark": (
        "A [dark|gray|black] cloud hid the sun. {S} {a.was} a little scared, but the [cloud|shadow] "
        "soon [passed|went away].",
    ),
    "bee": ("A [big|little|fat] bee [flew by|buzzed loudly]. {S} stood very still until it [went|flew] away.",),
    "thorn": ("[Ouch|Oh]! There was a thorn. {S} [took care|pulled it out] and went on.",),
    "noise": ("{S} heard a [strange|loud|scary] noise. But it was only [a frog|the wind|a bird|an old door].",),
    "sum": (
        "In the end, {a} had the {o.look} _{o.noun}.",
        "[Now|When the day was over,] {a} had the {o.look} _{o.noun}.",
    ),
    "sum with": (
        "After all this, the {o} was with _{a}.",
        "And who had the {o} now? _{a} did!",
        "That night, the {o} [slept|lay] next to _{a}.",
    ),
    "sum of one": (
        "In the end, {a} had the _{o.look} {o.noun}.",
        "[Now|When the day was over,] {a} had the _{o.look} {o.noun}.",
    ),
    "end": ("[The end.|And that was a good day.|What a day!|It was a lovely day.]",),
}

MORALS = {
    "care": (
        "From then on, {s} [took good care of {a.his} things|was more careful].",
        "{S} learned to look after {a.his} things.",
    ),
    "share": ("{S} learned that sharing [is fun|makes everyone happy].", "From then on, {s} always shared."),
    "help": (
        "{S} learned that it feels good to help.",
        "From that day on, {a} and {b} [were|stayed] friends.",
    ),
    "food": (
        "{S} learned that food tastes better with a friend.",
        "After that, {a} and {b} often ate together.",
    ),
    "kind": ("{S} learned that [a kind heart is worth more than food|it is good to be kind].",),
    "work": ("{S} learned that [good work takes time|two can do more than one].",),
    "friends": ("It was the best trip ever.", "{S} knew that everything is easier with a friend."),
    "truth": (
        "{S} learned to tell the truth[, even when it is hard|].",
        "{S} was glad to have told the truth.",
    ),
    "honest": (
        "{S} learned to give back what is not {a.his} own.",
        "{S} was glad to have done the right thing.",
    ),
    "gift": (
        "{S} learned that giving is [as good as|better than] getting.",
        "It was the best birthday ever.",
    ),
    "practice": ("{S} learned that you must try again and again.", "{S} never gave up again."),
    "promise": ("{S} learned that a promise is a promise.", "Everyone knew that they could trust {a}."),
    "fair": (
        "{S} learned that a fair trade makes both sides happy.",
        "After that, they [often traded|always asked first].",
    ),
}
