__thread int theirs = 7;
