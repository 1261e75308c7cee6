/* quant/text.c - the text that calibration uses when none is given: prose, letters, code, numbers,
 * other languages and dialogues, written for this purpose. Dialogues are inputs of a chat
 * template. */
#include "base/size.h"
#include "quant/quant.h"

/* clang-format off */
static const char *const pieces[] = {
    "The ferry left the harbour at half past six, while the lamps along the quay were still burning. Martha stood at "
    "the rail with her collar turned up and watched the town grow small: first the fish market, then the church with "
    "its green roof, and last of all the row of white houses where her grandmother had lived. Nobody had come to see "
    "her off. That was how she had wanted it, and yet she kept looking for a hand that waved.\n\n"
    "\"You will be cold up here,\" said the man who sold the tickets. \"There is tea below.\"\n\n"
    "\"In a minute,\" said Martha. \"I should like to see the island first.\"\n\n"
    "He laughed. \"Then you must wait two hours. But the tea will wait as well, I suppose; it has been in that pot "
    "since yesterday.\" And he went off whistling, with his bag of coins knocking against his knee.\n\n",
    "Once upon a time a miller had three daughters and a donkey that could not be made to walk backwards. The eldest "
    "said it was proud, the second said it was stupid, but the youngest said, \"It only wants to know where it is "
    "going.\" So she tied a little mirror between its ears, and from that day it walked forwards and backwards, up the "
    "hill and down again, and it looked at the road behind with the greatest interest. The king heard of it and sent "
    "for the girl. \"Can you teach my ministers the same?\" he asked. \"Sire,\" she answered, \"I have only one "
    "mirror.\"\n\nThe old wolf lay under the pines and listened. He heard the mice beneath the snow, the river under "
    "its ice, and far away the bells of a sledge. He was not hungry, for he had eaten; he was not afraid, for he had "
    "seen many winters. But he was alone, and that is a thing a wolf does not learn to like.\n\n",
    "Photosynthesis turns light into chemical energy. In the leaves of green plants, chlorophyll absorbs mostly red "
    "and blue light; water is split, oxygen is released, and carbon dioxide is built into sugars. The rate depends on "
    "temperature, on the amount of light, and on how open the stomata are. A large oak may move 400 litres of water on "
    "a summer day.\n\nThe bridge was completed in 1887 after six years of work. It is 312 metres long, rests on nine "
    "stone piers, and carried 2,450 wagons in its first month. In 1923 the western span was replaced; the engineers "
    "found that the iron had lost about 7.5% of its thickness. Repairs cost 1.2 million, nearly twice the first "
    "estimate.\n\nThe committee met on Tuesday, 14 March, and agreed on three points: (1) the budget for next year will "
    "not exceed that of this year; (2) every department reports its costs by the 10th of the month; (3) travel must be "
    "approved beforehand. The chairman, Dr. A. Lindqvist, thanked the members and closed the session at 17:40.\n\n",
    "def read_table(path, sep=\",\"):\n    \"\"\"Rows of a text file as dictionaries.\"\"\"\n    with open(path) as f:\n"
    "        names = f.readline().strip().split(sep)\n        rows = []\n        for line in f:\n            values = "
    "line.strip().split(sep)\n            if len(values) != len(names):\n                raise ValueError(f\"{path}: "
    "{len(values)} values, wanted {len(names)}\")\n            rows.append(dict(zip(names, values)))\n    return rows\n"
    "\n\n#include \"sum.h\"\n\nint main(void)\n{\n    int sum = 0;\n\n    for (int i = 1; i <= 100; i++)\n        if (i % "
    "3 == 0 || i % 5 == 0)\n            sum += i;\n    return sum;\n}\n\nSELECT name, "
    "COUNT(*) AS n FROM orders WHERE year = 2024 GROUP BY name ORDER BY n DESC LIMIT 10;\n\n{\"id\": 17, \"name\": "
    "\"lamp\", \"price\": 24.90, \"tags\": [\"home\", \"light\"], \"stock\": {\"north\": 3, \"south\": 0}, \"sold\": "
    "true}\n{\"id\": 18, \"name\": \"chair\", \"price\": 79.00, \"tags\": [], \"stock\": null, \"sold\": false}\n\n",
    "3, 6, 9, 12, 15, 18, 21. 100, 90, 80, 70, 60. 2 + 3 = 5; 17 - 9 = 8; 6 * 7 = 42; 144 / 12 = 12. Apples: 4, pears: "
    "11, plums: 7, together 22. a, b, c, d, e, f, g. one, two, three, four, five, six, seven, eight, nine, ten. "
    "Monday, Tuesday, Wednesday, Thursday, Friday. x = 3y + 2, so for y = 5 we have x = 17. 07:15, 08:30, 12:45, "
    "23:59. zebra, apple, mango, cherry -> apple, cherry, mango, zebra. c-a-t spells cat; h-o-u-s-e spells house.\n\n",
    "Le matin, quand la boulangère ouvre ses volets, toute la rue sent le pain chaud. Les enfants s'arrêtent devant la "
    "vitrine et comptent leurs pièces. « Deux croissants, s'il vous plaît ! » Der Zug nach Norden fährt heute von "
    "Gleis sieben; wegen Bauarbeiten hält er nicht in Altenau. Bitte achten Sie auf die Durchsagen. El río baja "
    "tranquilo en verano, pero en abril crece y se lleva los puentes de madera. Il nonno diceva sempre che chi va "
    "piano va sano e va lontano. O gato dormia ao sol, em cima do muro branco. В лесу было тихо, только снег падал с "
    "веток. 今日は天気がいいので、公園まで歩いて行きましょう。春天来了，花园里的花都开了。\n\n",
    "Dear Mr. Osei,\n\nThank you for your letter of the 3rd. I am sorry that the parcel reached you late, and that two "
    "of the cups were broken. We have sent new ones today; they should be with you by Friday at the latest. Please "
    "keep the damaged pieces until the carrier has seen them.\n\nWith kind regards,\nHelen Marsh\n\n"
    "To make the soup, cut two onions and a leek into thin rings and let them turn soft in a spoonful of butter. Add "
    "four potatoes in small cubes, a litre of broth, a bay leaf and a little salt. Cook gently for twenty minutes, "
    "take out the leaf, and crush everything with a fork. Serve with cream and plenty of pepper.\n\n",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"What is 48 plus 37?\"},{\"role\":\"assistant\",\"content\":\"48 + 37 = "
    "85.\"},{\"role\":\"user\",\"content\":\"And if I take away 20?\"},{\"role\":\"assistant\",\"content\":\"Then 65 is "
    "left.\"}],\"add_generation_prompt\":false,\"enable_thinking\":false}",
    "{\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful assistant. Answer briefly.\"},{\"role\":\"user\","
    "\"content\":\"My name is Robin and I live in a blue house near the river. What colour is my house?\"},{\"role\":"
    "\"assistant\",\"content\":\"Your house is blue.\"},{\"role\":\"user\",\"content\":\"Sort these words: pear, apple, "
    "fig, cherry.\"},{\"role\":\"assistant\",\"content\":\"apple, cherry, fig, pear\"}],\"add_generation_prompt\":false,"
    "\"enable_thinking\":false}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Write a JSON object with the name Ada and the age 36.\"},{\"role\":"
    "\"assistant\",\"content\":\"{\\\"name\\\": \\\"Ada\\\", \\\"age\\\": 36}\"},{\"role\":\"user\",\"content\":\"Spell the "
    "word garden.\"},{\"role\":\"assistant\",\"content\":\"g-a-r-d-e-n\"},{\"role\":\"user\",\"content\":\"How many letters "
    "does it have?\"},{\"role\":\"assistant\",\"content\":\"It has 6 letters.\"}],\"add_generation_prompt\":false,"
    "\"enable_thinking\":false}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a short story about a fox who finds a key.\"},{\"role\":"
    "\"assistant\",\"content\":\"A young fox found a small silver key beneath an old oak. He carried it to the badger, "
    "who knew most things. 'It opens no door of mine,' said the badger. So the fox went to the hen house, to the mill "
    "and to the church, and nowhere did it fit. At last he hung it on a branch, where it sang in the wind, and he was "
    "content.\"},{\"role\":\"user\",\"content\":\"What was the key made of?\"},{\"role\":\"assistant\",\"content\":\"It was "
    "made of silver.\"}],\"add_generation_prompt\":false,\"enable_thinking\":false}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Which is larger, 7.25 or 7.3? Explain.\"},{\"role\":\"assistant\","
    "\"content\":\"7.3 is larger. Written with two decimals it is 7.30, and 30 hundredths are more than 25.\"},{\"role\":"
    "\"user\",\"content\":\"What is the capital of France, and what comes after 18, 20, 22?\"},{\"role\":\"assistant\","
    "\"content\":\"The capital of France is Paris. After 18, 20, 22 comes 24.\"}],\"add_generation_prompt\":false,"
    "\"enable_thinking\":false}",
    "Rain fell all through the night, and in the morning the lower field was a lake. The boys made a raft of two doors "
    "and a barrel. \"We shall sail to the mill,\" said Tom, who was always captain. \"And what shall we eat?\" asked "
    "little Ned. Tom had not thought of that. He looked at the sky, which was grey, and at the house, where smoke rose "
    "from the kitchen chimney; then he said, in the voice of a man who has weighed everything, that they would sail "
    "after breakfast.\n\nThe doctor took off his glasses and polished them for a long time. \"There is nothing wrong "
    "with your heart,\" he said at last. \"It beats as it ought to. What you need is a holiday, and somebody to quarrel "
    "with.\" The colonel, who had not been spoken to in such a manner since he was nine years old, opened his mouth, "
    "shut it again, and to his own surprise began to laugh.\n\n"
    "There are, it seems to me, two kinds of readers: those who want to know what happens, and those who want to be "
    "there while it does. For the first a book is a road, and the shorter the better; for the second it is a garden "
    "with a wall round it. Neither is wrong. But an author who does not know for which of them he is writing will "
    "please nobody, least of all himself. He should ask, before the first line, whether the gate is locked.\n\n",
    "The sea was quiet. Gulls walked along the sand, picking at the weed that the tide had left, and a dog ran after "
    "them without any hope of catching one. Anna had taken off her shoes. She counted the boats: four with red sails, "
    "one with a brown one, and the big grey ship of the coast guard that never seemed to move. \"If I had a boat,\" she "
    "thought, \"I would give it a name that nobody could read.\" Behind her the clock of the town hall struck eleven. "
    "She ought to have been at school for three hours.\n\nWhy does ice float? When water freezes, its molecules take "
    "places in a lattice that needs more room than the liquid did, so ice is about nine percent lighter than the same "
    "volume of water. Lakes therefore freeze from above, and fish live through the winter beneath the ice.\n\n"
    "Chapter Four. In which the inspector asks a question, the cook gives an answer, and neither of them believes the "
    "other. It was raining when the carriage stopped before Number Nineteen; it was still raining when it drove away "
    "without him.\n\n",
};
/* clang-format on */

const char *ew_q_text_piece(size_t i)
{
    return i < EW_COUNT(pieces) ? pieces[i] : NULL;
}
