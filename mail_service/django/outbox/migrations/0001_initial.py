"""The table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """One table, without relations to any other."""

    initial = True

    operations = [
        migrations.CreateModel(
            name="OutboxMail",
            fields=[
                ("number", models.BigAutoField(primary_key=True, serialize=False)),
                ("mail_id", models.CharField(max_length=200)),
                ("entry", models.CharField(default="", max_length=200)),
                ("message", models.TextField()),
                ("options", models.TextField()),
                ("size", models.PositiveIntegerField()),
                ("stored_at", models.DateTimeField()),
                ("claimed_by", models.CharField(max_length=32, null=True)),
                ("claimed_until_ms", models.BigIntegerField(null=True)),
                ("refused_at", models.DateTimeField(null=True)),
                ("error", models.TextField(default="")),
            ],
            options={
                "verbose_name": "mail in the outbox",
                "verbose_name_plural": "mails in the outbox",
                "db_table": "mail_service_outbox",
            },
        ),
    ]
