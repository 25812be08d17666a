"""What a program calls: functions that return data and print nothing.

    from agent import evaluate, train
    run = train("CartPole-v1", steps=30_000, seed=0)
    print(evaluate(run, episodes=20))

Errors are subclasses of `SextetError`; Ctrl-C keeps what is done and raises KeyboardInterrupt.
"""
