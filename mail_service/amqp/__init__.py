"""
The seam to RabbitMQ, nameko and nameko-amqp-retry: where their defaults lose, double or stall mail, ours stand instead.
"""
